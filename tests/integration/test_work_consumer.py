"""Members of a group whose offsets move only past finished work, on a real broker."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from infra.kafka.clients import bus_producer, new_consumer, start_client
from infra.kafka.work import WorkConsumer, work_consumer
from infra.lifecycle import Deadline
from infra.settings import KafkaSettings
from schemas import topics
from schemas.codec import Message
from tests.waiting import eventually

pytestmark = pytest.mark.integration

A, B = topics.JOBS_INTERACTIVE, topics.JOBS_BULK


async def _publish(settings: KafkaSettings, topic: str, *values: str, partition: int = 0) -> None:
    async with bus_producer(settings, client_id="test") as producer:
        sent = [await producer.send(topic, Message(None, value.encode(), ()), partition=partition) for value in values]
        await producer.all_acked(sent)


async def _committed(settings: KafkaSettings, topic: str, partition: int = 0) -> int:
    consumer = new_consumer(settings, group="g", client_id="test")
    await start_client(consumer, settings)
    try:
        return await consumer.committed(TopicPartition(settings.namespace + topic, partition)) or 0
    finally:
        await consumer.stop()


async def _until_committed(settings: KafkaSettings, topic: str, offset: int) -> None:
    async def reached() -> bool:
        return await _committed(settings, topic) == offset

    await eventually(reached, 15, f"offset {offset} of {topic} committed", every_s=0.2)


async def _fetch(work: WorkConsumer, count: int, only: Collection[str] | None = None) -> list[ConsumerRecord]:
    taken: list[ConsumerRecord] = []

    async def enough() -> bool:
        taken.extend(await work.fetch(max_records=count - len(taken), topics=only))
        return len(taken) == count

    await eventually(enough, 20, f"{count} records")
    return taken


def _values(records: list[ConsumerRecord]) -> list[str]:
    return [record.value.decode() for record in records]


async def test_commits_stop_before_unfinished_work(topics_ready: KafkaSettings) -> None:
    await _publish(topics_ready, A, "0", "1", "2", "3")
    async with work_consumer(topics_ready, topics=[A], group="g", stage="test", commit_every_s=0.1) as work:
        records = await _fetch(work, 4)
        for index in (1, 3, 0):
            work.finish(records[index])
        await _until_committed(topics_ready, A, 2)
        assert work.in_flight == 1
        work.finish(records[2])
        await _until_committed(topics_ready, A, 4)


async def test_topics_left_out_keep_their_records_for_later(topics_ready: KafkaSettings) -> None:
    await _publish(topics_ready, A, "a0", "a1")
    await _publish(topics_ready, B, "b0", "b1")
    async with work_consumer(topics_ready, topics=[A, B], group="g", stage="test") as work:
        await work.wait_assigned()
        assert _values(await _fetch(work, 1, [B])) == ["b0"]
        assert await work.fetch(max_records=5, timeout_s=0.3, topics=()) == []
        assert _values(await _fetch(work, 2, [A])) == ["a0", "a1"]
        assert _values(await _fetch(work, 1, [B])) == ["b1"]


async def test_paused_topics_hand_out_nothing_until_resumed(topics_ready: KafkaSettings) -> None:
    await _publish(topics_ready, A, "a0")
    await _publish(topics_ready, B, "b0", "b1")
    async with work_consumer(topics_ready, topics=[A, B], group="g", stage="test") as work:
        await work.wait_assigned()
        work.pause([B])
        assert _values(await _fetch(work, 1)) == ["a0"]
        assert await work.fetch(max_records=5, timeout_s=0.3) == []
        work.resume([B])
        assert _values(await _fetch(work, 2)) == ["b0", "b1"]


class _Hooks:
    """Remembers what it was told; a drain lasts until the test says so, or its deadline."""

    def __init__(self) -> None:
        self.drained: list[frozenset[TopicPartition]] = []
        self.assignments: list[frozenset[TopicPartition]] = []
        self.done = asyncio.Event()

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        self.drained.append(partitions)
        try:
            async with asyncio.timeout(deadline.remaining_s):
                await self.done.wait()
        except TimeoutError:
            pass

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.assignments.append(partitions)


@asynccontextmanager
async def _member(
    settings: KafkaSettings, hooks: _Hooks | None = None, drain_s: float = 10.0
) -> AsyncIterator[tuple[WorkConsumer, list[ConsumerRecord]]]:
    """A member that takes whatever comes and finishes nothing on its own."""
    taken: list[ConsumerRecord] = []
    async with work_consumer(settings, topics=[A], group="g", stage="test", hooks=hooks, drain_s=drain_s) as work:

        async def take() -> None:
            while True:
                taken.extend(await work.fetch(max_records=10))

        task = asyncio.create_task(take())
        try:
            yield work, taken
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_second_member_takes_over_what_was_not_finished(topics_ready: KafkaSettings) -> None:
    for partition in range(topics_ready.partitions):
        await _publish(topics_ready, A, "done", "open", partition=partition)
    hooks = _Hooks()
    async with _member(topics_ready, hooks) as (first, taken):
        await eventually(lambda: len(taken) == 2 * topics_ready.partitions, 20)
        async with _member(topics_ready) as (second, also_taken):
            await eventually(lambda: hooks.drained, 20, "the first member is asked to drain")
            for record in taken:
                if record.value == b"done":
                    first.finish(record)
            hooks.done.set()
            await eventually(lambda: second.held and first.is_assigned, 20, "both have partitions")
            assert not first.held & second.held
            assert len(first.held | second.held) == topics_ready.partitions
            await eventually(lambda: len(also_taken) == len(second.held), 20)
            assert {record.value for record in also_taken} == {b"open"}, "what the drain finished was committed"
            lost = next(r for r in taken if not first.holds(r))
            first.finish(lost)
            assert second.in_flight == len(second.held), "work finished after its partition was lost moves nothing"


async def test_a_drain_ends_at_its_deadline(topics_ready: KafkaSettings) -> None:
    await _publish(topics_ready, A, "open")
    hooks = _Hooks()
    async with _member(topics_ready, hooks, drain_s=0.5) as (first, taken):
        await eventually(lambda: taken, 20)
        async with _member(topics_ready) as (second, _):
            await eventually(lambda: second.is_assigned and first.is_assigned and second.held, 20)
    assert hooks.drained


async def test_leaving_commits_what_was_finished(topics_ready: KafkaSettings) -> None:
    await _publish(topics_ready, A, "0", "1")
    async with work_consumer(topics_ready, topics=[A], group="g", stage="test", commit_every_s=60) as work:
        records = await _fetch(work, 2)
        work.finish(records[0])
    assert await _committed(topics_ready, A) == 1
