"""Reads the end of `tts.deliveries`: which attempts were settled lately, by whichever notifier."""

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.clients import new_consumer, start_client
from infra.settings import KafkaSettings
from notifier.ledger import Settled
from schemas.codec import DecodeError, decode
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.topics import DELIVERIES

# More than can be settled while the slowest attempt of a partition holds its offset back: 15 s at 1,000/s.
_TAIL = 32_768


def event_id(delivery_id: str, attempt: int) -> str:
    """CloudEvents `id` of an attempt's event: the same attempt, repeated, is the same event."""
    return f"{delivery_id}:{attempt}"


def _settled(record: ConsumerRecord) -> Settled | None:
    delivery_id = next((value.decode() for name, value in record.headers or () if name == "ce_id"), "").rpartition(":")[
        0
    ]
    try:
        event = decode(DeliveryAttempted, record.value)
    except DecodeError:
        return None
    return Settled(delivery_id, event.attempt, event.state is not DeliveryState.RETRYING)


class DeliveryTail:
    """What the newest events settled; a second reading goes on where the first ended."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._positions: dict[TopicPartition, int] = {}

    async def read(self) -> list[Settled]:
        """Attempts settled since the last reading; the first reads the last of them.

        Raises:
            ServerUnavailableError: the bus does not answer.
        """
        consumer = new_consumer(self._settings, DELIVERIES, group=None, client_id="voxbus-notify-tail")
        await start_client(consumer, self._settings)
        try:
            return await self._read(consumer)
        finally:
            await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer) -> list[Settled]:
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        for partition in partitions:
            tail = ends[partition] - _TAIL // max(1, len(partitions))
            self._positions[partition] = max(begins[partition], self._positions.get(partition, tail))
            consumer.seek(partition, self._positions[partition])
        found: list[Settled] = []
        while any(self._positions[partition] < ends[partition] for partition in partitions):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found.extend(settled for record in records if (settled := _settled(record)) is not None)
            # Positions, not records: a log can end in a gap.
            for partition in partitions:
                self._positions[partition] = await consumer.position(partition)
        return found
