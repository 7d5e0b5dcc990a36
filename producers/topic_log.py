"""What stands on topics now: every record from the first kept one up to the ends at the time of the call."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import new_consumer, start_client, unreachable
from infra.settings import KafkaSettings

_BATCH = 2_000
# A log that gives nothing for so long, although its end is not reached, will not give it.
_STALLED_S = 20.0


class TopicLog:
    """A reader without a group. Make one with `topic_log`."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: KafkaSettings) -> None:
        self._consumer = consumer
        self._settings = settings

    async def records(self, topic: str, *, key: bytes | None = None) -> AsyncIterator[ConsumerRecord]:
        """All records of a topic (name without namespace), in order within each partition.

        Args:
            topic: name without namespace.
            key: only records of this key.

        Raises:
            UserError: no such topic, or the log stops giving records before its end.
        """
        name = self._settings.namespace + topic
        partitions = await self._partitions(name)
        ends = await self._consumer.end_offsets(partitions)
        begins = await self._consumer.beginning_offsets(partitions)
        open_partitions = {one for one in partitions if ends[one] > begins[one]}
        self._consumer.assign(partitions)
        self._consumer.pause(*(set(partitions) - open_partitions))
        for partition in open_partitions:
            self._consumer.seek(partition, begins[partition])
        async for record in self._until(open_partitions, ends):
            if key is None or record.key == key:
                yield record

    async def record_at(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The one record at an offset; None when the log no longer has it."""
        place = TopicPartition(self._settings.namespace + topic, partition)
        begins = await self._consumer.beginning_offsets([place])
        ends = await self._consumer.end_offsets([place])
        if not begins[place] <= offset < ends[place]:
            return None
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        async for record in self._until({place}, {place: offset + 1}):
            return record if record.offset == offset else None
        return None

    async def _until(
        self, open_partitions: set[TopicPartition], ends: dict[TopicPartition, int]
    ) -> AsyncIterator[ConsumerRecord]:
        while open_partitions:
            try:
                async with asyncio.timeout(_STALLED_S):
                    batches = await self._consumer.getmany(timeout_ms=1_000, max_records=_BATCH)
                    while not batches and not await self._reached(open_partitions, ends):
                        batches = await self._consumer.getmany(timeout_ms=1_000, max_records=_BATCH)
            except TimeoutError:
                names = ", ".join(f"{one.topic}/{one.partition}" for one in sorted(open_partitions))
                raise UserError(
                    f"Kafka at {self._settings.bootstrap_servers} stopped giving records of {names}"
                ) from None
            for partition, records in batches.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            finished = await self._reached(open_partitions, ends)
            open_partitions -= finished
            self._consumer.pause(*finished)

    async def _reached(
        self, open_partitions: set[TopicPartition], ends: dict[TopicPartition, int]
    ) -> set[TopicPartition]:
        """Positions count, not records: a log can end in a gap."""
        return {one for one in open_partitions if await self._consumer.position(one) >= ends[one]}

    async def _partitions(self, name: str) -> list[TopicPartition]:
        known = await self._consumer.topics()
        numbers = self._consumer.partitions_for_topic(name) if name in known else None
        if not numbers:
            address = self._settings.bootstrap_servers
            raise UserError(f"Kafka at {address} has no topic {name}; create the topics with `voxbus topics`")
        return [TopicPartition(name, number) for number in sorted(numbers)]


@asynccontextmanager
async def topic_log(settings: KafkaSettings, *, client_id: str) -> AsyncIterator[TopicLog]:
    """A connected reader.

    Raises:
        ServerUnavailableError: the bus does not answer, or goes away while it is read.
    """
    consumer = new_consumer(settings, group=None, client_id=client_id)
    try:
        await start_client(consumer, settings)
        yield TopicLog(consumer, settings)
    except KafkaError as error:
        raise unreachable(settings) from error
    finally:
        await consumer.stop()


def headers_of(record: ConsumerRecord) -> Iterable[tuple[str, bytes]]:
    """Headers with a value."""
    return [(name, value) for name, value in record.headers or () if value is not None]
