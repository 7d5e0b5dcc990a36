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
# How long one look for records takes when there are none.
_POLL_MS = 100
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
            async for record in self._until_ends(reader):
                if key is None or record.key == key:
                    yield record

    async def record_at(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The one record at an offset; None when the log no longer has it."""
        async with self._reader(topic) as reader:
            place = TopicPartition(self._settings.namespace + topic, partition)
            if place not in reader.assignment():
                return None
            reader.pause(*(reader.assignment() - {place}))
            # Past an end, or before what is kept, the reader starts over at the first record: another offset.
            reader.seek(place, offset)
            async for record in self._until_ends(reader, {place}):
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

    async def _until_ends(
        self, reader: AIOKafkaConsumer, places: set[TopicPartition] | None = None
    ) -> AsyncIterator[ConsumerRecord]:
        """Records up to the end each partition had at its first fetch; a partition that is done is paused.

        The end is the fetch's high watermark: asked for by itself (ListOffsets), the embedded broker over object
        storage may answer with one of long ago.
        """
        waiting = set(places or reader.assignment())
        ends: dict[TopicPartition, int] = {}
        stall = Deadline(_STALLED_S)
        while waiting:
            batches = await reader.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
            for place in waiting - ends.keys():
                if (end := reader.highwater(place)) is not None:
                    ends[place] = end
            for partition, records in batches.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            # Positions count, not records: a log can end in a gap.
            finished = {one for one in waiting & ends.keys() if await reader.position(one) >= ends[one]}
            waiting -= finished
            reader.pause(*finished)
            if batches or finished:
                stall = Deadline(_STALLED_S)
            elif stall.passed:
                names = ", ".join(f"{one.topic}/{one.partition}" for one in sorted(waiting))
                raise UserError(f"Kafka at {self._settings.bootstrap_servers} stopped giving records of {names}")


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
