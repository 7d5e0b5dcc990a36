"""What the gateway hears on the bus: audio in the making, states and ends of requests. A tail without a group.

Each gateway hears everything and keeps only what somebody here waits for, so replicas need nothing of one another.
One reader for all topics: on the embedded broker every reader costs, asked or not.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import new_consumer, start_client
from infra.kafka.ends import end_offsets
from infra.logging import get_logger
from infra.settings import KafkaSettings
from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.codec import DecodeError, decode, decode_chunk, event_type
from schemas.jobs import SynthesisJob
from schemas.outcomes import RenditionStored, SynthesisFailed

_log = get_logger(__name__)
_BATCH = 500
_RECONNECT_S = 0.5

OnRecord = Callable[[ConsumerRecord], None]


class Tail:
    """Follows topics from their ends on, for as long as the gateway lives; after an outage from the new ends."""

    def __init__(
        self, settings: KafkaSettings, handlers: Mapping[str, OnRecord], on_lost: Callable[[Exception], None]
    ) -> None:
        self._settings = settings
        self._topics = tuple(handlers)
        self._handlers = {settings.namespace + topic: handler for topic, handler in handlers.items()}
        self._on_lost = on_lost
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listen; those who wait are told when listening was interrupted."""
        while True:
            try:
                await self._listen()
            except (UserError, KafkaError, OSError) as error:
                _log.warning("listening interrupted", error=type(error).__name__, why=str(error))
            finally:
                self.listening.clear()
                self._on_lost(ConnectionError("the bus was lost"))
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        consumer = new_consumer(self._settings, *self._topics, group=None, client_id="voxbus-gateway", from_start=False)
        try:
            await start_client(consumer, self._settings)
            partitions = consumer.assignment()
            missing = set(self._handlers) - {partition.topic for partition in partitions}
            if missing:
                raise UserError(f"topics are missing: {', '.join(sorted(missing))}; create them with `voxbus topics`")
            # Before anybody publishes through this gateway: the answers must not be missed.
            for partition, end in (await end_offsets(self._settings, partitions)).items():
                consumer.seek(partition, end)
            self.listening.set()
            _log.info("listening", partitions=len(partitions))
            await self._read(consumer)
        finally:
            await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=1_000, max_records=_BATCH)
            for partition, records in batches.items():
                handler = self._handlers[partition.topic]
                for record in records:
                    handler(record)


def audio_into(
    on_chunk: Callable[[AudioChunk], None],
    on_finished: Callable[[TakeFinished], None],
    on_abandoned: Callable[[TakeAbandoned], None],
) -> OnRecord:
    """Hands on what is on `tts.audio`; what cannot be read is the uploader's to dead-letter."""

    def on_record(record: ConsumerRecord) -> None:
        headers = [(name, value) for name, value in record.headers or () if value is not None]
        kind = event_type(headers)
        try:
            if kind == AudioChunk.ce_type:
                on_chunk(decode_chunk(record.key, record.value, headers))
            elif kind == TakeFinished.ce_type:
                on_finished(decode(TakeFinished, record.value))
            elif kind == TakeAbandoned.ce_type:
                on_abandoned(decode(TakeAbandoned, record.value))
        except DecodeError:
            return

    return on_record


def keyed_into(on_record: Callable[[bytes | None, bytes | None], None]) -> OnRecord:
    """Hands on key and value."""
    return lambda record: on_record(record.key, record.value)


def outcomes_into(on_stored: Callable[[str], None], on_failed: Callable[[str], None]) -> OnRecord:
    """Hands on the fingerprints of syntheses that are stored, and of those that failed as a whole."""

    def on_record(record: ConsumerRecord) -> None:
        kind = event_type((name, value) for name, value in record.headers or () if value is not None)
        if kind == RenditionStored.ce_type:
            on_stored((record.key or b"").decode("ascii", "replace"))
        if kind != SynthesisFailed.ce_type:
            return
        try:
            failed = decode(SynthesisFailed, record.value)
        except DecodeError:
            return
        if not failed.formats:
            on_failed(failed.fingerprint)

    return on_record


def jobs_into(on_job: Callable[[SynthesisJob], None]) -> OnRecord:
    """Hands on work orders; what cannot be read is the worker's to dead-letter."""

    def on_record(record: ConsumerRecord) -> None:
        with suppress(DecodeError):
            on_job(decode(SynthesisJob, record.value))

    return on_record


def fingerprints_into(on_fingerprint: Callable[[str], None]) -> OnRecord:
    """Hands on what the records are about."""
    return lambda record: on_fingerprint((record.key or b"").decode("ascii", "replace"))
