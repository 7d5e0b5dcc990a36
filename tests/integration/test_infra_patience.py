"""A partition is read promptly however many small batches it has had."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.kafka.clients import bus_producer, new_consumer
from infra.settings import KafkaSettings
from schemas import topics
from schemas.codec import Message
from synth_consumer.dedup.transport import rewind_never_committed

_SINGLES = 5_000


async def _read(consumer: AIOKafkaConsumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with asyncio.timeout(10):
        while len(values) < count:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [record.value for record in records]
    return values


async def test_the_end_of_a_long_history_of_single_sends_is_read_promptly(topics_ready: KafkaSettings) -> None:
    settings = topics_ready.model_copy(update={"linger_ms": 0, "fetch_max_wait_ms": 20})
    name = topics.TICKS
    end = TopicPartition(settings.namespace + name, 0)
    async with bus_producer(settings, client_id="test") as producer:
        for number in range(_SINGLES):
            await (await producer.send(name, Message(b"k", str(number).encode(), ()), partition=0))
        reader = new_consumer(settings, group=None, client_id="test")
        await reader.start()
        try:
            reader.assign([end])
            reader.seek(end, _SINGLES - 10)
            began = time.monotonic()
            assert await _read(reader, 10) == [str(number).encode() for number in range(_SINGLES - 10, _SINGLES)]
            # One that comes while the reader waits at the end.
            await (await producer.send(name, Message(b"k", b"last", ()), partition=0))
            assert await _read(reader, 1) == [b"last"]
            assert time.monotonic() - began < 3
        finally:
            await reader.stop()


async def test_what_was_read_ahead_on_a_never_committed_partition_comes_again(topics_ready: KafkaSettings) -> None:
    settings, name = topics_ready, topics.TICKS
    fresh = TopicPartition(settings.namespace + name, 0)
    async with bus_producer(settings, client_id="test") as producer:
        for value in (b"0", b"1", b"2"):
            await (await producer.send(name, Message(b"k", value, ()), partition=0))
    consumer = new_consumer(settings, group="fresh", client_id="test")
    await consumer.start()
    try:
        consumer.assign([fresh])
        # Read, and thrown away, as by a flow that is suspended.
        assert await _read(consumer, 3) == [b"0", b"1", b"2"]
        committed = await consumer.seek_to_committed()
        assert committed == {fresh: None}
        await rewind_never_committed(consumer, committed)
        assert await _read(consumer, 3) == [b"0", b"1", b"2"]
    finally:
        await consumer.stop()
