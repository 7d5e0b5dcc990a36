"""What stands on topics now: every record from the first kept one up to the ends at the time of the call."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import new_consumer, start_client, unreachable
from infra.lifecycle import Deadline
from infra.settings import KafkaSettings

_BATCH = 2_000
# A log that gives nothing for so long, although its end is not reached, will not give it.
_STALLED_S = 20.0


class TopicLog:
    """A reader without a group. Make one with `topic_log`."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: KafkaSettings, client_id: str) -> None:
        self._consumer = consumer
        self._settings = settings
        self._client_id = client_id

    async def records(self, topic: str, *, key: bytes | None = None) -> AsyncIterator[ConsumerRecord]:
        """All records of a topic (name without namespace), in order within each partition.

        Args:
            topic: name without namespace.
            key: only records of this key.

        Raises:
            UserError: no such topic, or the log stops giving records before its end.
        """
        async with self._reader(topic) as reader:
            partitions = reader.assignment()
            ends = await reader.end_offsets(partitions)
            begins = await reader.beginning_offsets(partitions)
            filled = {one for one in partitions if ends[one] > begins[one]}
            reader.pause(*(partitions - filled))
            for partition in filled:
                reader.seek(partition, begins[partition])
            async for record in self._until(reader, filled, ends):
                if key is None or record.key == key:
                    yield record

    async def record_at(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The one record at an offset; None when the log no longer has it."""
        async with self._reader(topic) as reader:
            place = TopicPartition(self._settings.namespace + topic, partition)
            if place not in reader.assignment():
                return None
            begins = await reader.beginning_offsets([place])
            ends = await reader.end_offsets([place])
            if not begins[place] <= offset < ends[place]:
                return None
            reader.pause(*(reader.assignment() - {place}))
            reader.seek(place, offset)
            async for record in self._until(reader, {place}, {place: offset + 1}):
                return record if record.offset == offset else None
        return None

    @asynccontextmanager
    async def _reader(self, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of all partitions of one topic."""
        name = self._settings.namespace + topic
        if name not in await self._consumer.topics():
            address = self._settings.bootstrap_servers
            raise UserError(f"Kafka at {address} has no topic {name}; create the topics with `voxbus topics`")
        reader = new_consumer(self._settings, topic, group=None, client_id=self._client_id)
        try:
            await start_client(reader, self._settings)
            yield reader
        finally:
            await reader.stop()

    async def _until(
        self, reader: AIOKafkaConsumer, places: set[TopicPartition], ends: dict[TopicPartition, int]
    ) -> AsyncIterator[ConsumerRecord]:
        """Records of these partitions up to their ends; a partition that is done is paused."""
        while places:
            for partition, records in (await self._batch(reader, places, ends)).items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            finished = await _reached(reader, places, ends)
            places -= finished
            reader.pause(*finished)

    async def _batch(
        self, reader: AIOKafkaConsumer, places: set[TopicPartition], ends: dict[TopicPartition, int]
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """The next records; none when an end was reached without."""
        clock = Deadline(_STALLED_S)
        while not clock.passed:
            batches: dict[TopicPartition, list[ConsumerRecord]] = await reader.getmany(
                timeout_ms=1_000, max_records=_BATCH
            )
            if batches or await _reached(reader, places, ends):
                return batches
        names = ", ".join(f"{one.topic}/{one.partition}" for one in sorted(places))
        raise UserError(f"Kafka at {self._settings.bootstrap_servers} stopped giving records of {names}")


async def _reached(
    reader: AIOKafkaConsumer, places: set[TopicPartition], ends: dict[TopicPartition, int]
) -> set[TopicPartition]:
    """Positions count, not records: a log can end in a gap."""
    return {one for one in places if await reader.position(one) >= ends[one]}


@asynccontextmanager
async def topic_log(settings: KafkaSettings, *, client_id: str) -> AsyncIterator[TopicLog]:
    """A connected reader.

    Raises:
        ServerUnavailableError: the bus does not answer, or goes away while it is read.
    """
    consumer = new_consumer(settings, group=None, client_id=client_id)
    try:
        await start_client(consumer, settings)
        yield TopicLog(consumer, settings, client_id)
    except KafkaError as error:
        raise unreachable(settings) from error
    finally:
        await consumer.stop()


def headers_of(record: ConsumerRecord) -> Iterable[tuple[str, bytes]]:
    """Headers with a value."""
    return [(name, value) for name, value in record.headers or () if value is not None]
