"""What the gateway hears on the bus: audio in the making, states and ends of requests. Tails without a group.

Each gateway hears everything and keeps only what somebody here waits for, so replicas need nothing of one another.
"""

import asyncio
from collections.abc import Callable

from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import new_consumer, start_client
from infra.logging import get_logger
from infra.settings import KafkaSettings
from producers.gateway.take_hub import TakeHub
from schemas import topics
from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.codec import DecodeError, decode, decode_chunk, event_type

_log = get_logger(__name__)
_BATCH = 500
_RECONNECT_S = 0.5

OnRecord = Callable[[ConsumerRecord], None]


class Tail:
    """Follows one topic from its end on, for as long as the gateway lives; after an outage from the new end."""

    def __init__(
        self, settings: KafkaSettings, topic: str, on_record: OnRecord, on_lost: Callable[[Exception], None]
    ) -> None:
        self._settings, self._topic = settings, topic
        self._on_record, self._on_lost = on_record, on_lost
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listen; those who wait are told when listening was interrupted."""
        while True:
            try:
                await self._listen()
            except (UserError, KafkaError, OSError) as error:
                self.listening.clear()
                self._on_lost(ConnectionError(f"lost {self._topic}"))
                _log.warning("tail interrupted", topic=self._topic, error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        consumer = new_consumer(
            self._settings, self._topic, group=None, client_id=f"voxbus-gateway-{self._topic}", from_start=False
        )
        try:
            await start_client(consumer, self._settings)
            # The ends are looked up before anybody publishes through this gateway: its answers must not be missed.
            await asyncio.gather(*(consumer.position(partition) for partition in consumer.assignment()))
            self.listening.set()
            while True:
                for records in (await consumer.getmany(timeout_ms=1_000, max_records=_BATCH)).values():
                    for record in records:
                        self._on_record(record)
        finally:
            self.listening.clear()
            await consumer.stop()


def audio_into(hub: TakeHub) -> OnRecord:
    """Reads records of `tts.audio` into the hub; what cannot be read is the uploader's to dead-letter."""

    def on_record(record: ConsumerRecord) -> None:
        headers = [(name, value) for name, value in record.headers or () if value is not None]
        kind = event_type(headers)
        try:
            if kind == AudioChunk.ce_type:
                hub.chunk(decode_chunk(record.key, record.value, headers))
            elif kind == TakeFinished.ce_type:
                finished = decode(TakeFinished, record.value)
                hub.ended(finished.job.fingerprint, finished.take_id, abandoned=False)
            elif kind == TakeAbandoned.ce_type:
                gone = decode(TakeAbandoned, record.value)
                hub.ended(gone.fingerprint, gone.take_id, abandoned=True)
        except DecodeError:
            return

    return on_record


AUDIO, STATUS, COMPLETED = topics.AUDIO, topics.STATUS, topics.COMPLETED
