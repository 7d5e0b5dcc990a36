"""Slots in their group: sharing, rebalancing, whose turn it is, and being full without being put out."""

import time
from collections import Counter
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from ulid import ULID

import infra.kafka.clients
from infra.settings import KafkaSettings, RedisSettings
from schemas.codes import ErrorCode, Priority
from synth_consumer.worker.slot import Slot
from tests.integration.worker_bench import (
    all_committed,
    listening,
    make_job,
    publish,
    worker_settings,
    working,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def test_interactive_overtakes_bulk_and_bulk_moves_on(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    bulk = [make_job(f"不急的句子，第{n}句，", Priority.BULK) for n in range(20)]
    await publish(topics_ready, bulk)
    # One lane, some tenths of a second a job; take ids sort by when the take began.
    settings = worker_settings(topics_ready, redis_settings, lanes=1, tone_realtime_factor=0.08)
    async with listening(topics_ready) as heard, working(settings):
        await eventually(lambda: len(heard.finished) >= 2, 30)
        interactive = [make_job(f"很急的句子，第{n}句，") for n in range(12)]
        await publish(topics_ready, interactive)
        published = ULID.from_timestamp(time.time())
        await eventually(lambda: len(heard.finished_jobs()) == 32, 60)
    takes = sorted(heard.finished, key=lambda event: event.take_id)
    last = max(index for index, event in enumerate(takes) if event.job.priority is Priority.INTERACTIVE)
    assert takes[last + 1 :], "interactive jobs came later and were done before the last bulk job"
    since = [event.job.priority for event in takes[: last + 1] if event.take_id > str(published)]
    # One start in four, and what began before the slot had fetched them.
    assert 2 <= since.count(Priority.BULK) <= 3 + 2


async def test_slots_of_two_workers_share_the_jobs(topics_ready: KafkaSettings, redis_settings: RedisSettings) -> None:
    settings = worker_settings(topics_ready, redis_settings, slots=2, lanes=1, tone_realtime_factor=0.05)
    async with listening(topics_ready) as heard, working(settings), working(settings):
        jobs = [make_job(f"大家一起说，第{n}句，") for n in range(40)]
        await publish(topics_ready, jobs)
        await eventually(lambda: len(heard.finished_jobs()) == 40, 90)
        await all_committed(topics_ready, 40)
    for event in heard.finished:
        heard.check_audio(event)
    takes = Counter(event.job.job_id for event in heard.finished)
    # A slot that joins late takes partitions over; what was in hand there may be spoken twice, and never lost.
    assert sum(count > 1 for count in takes.values()) <= 4


async def test_a_full_slot_stays_in_its_group(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.kafka.clients, "AIOKafkaConsumer", partial(AIOKafkaConsumer, max_poll_interval_ms=2_000))
    assignments: list[int] = []

    async def assigned(slot: Slot, partitions: frozenset[TopicPartition]) -> None:
        assignments.append(len(partitions))
        await former(slot, partitions)

    former = Slot.assigned
    monkeypatch.setattr(Slot, "assigned", assigned)
    jobs = [make_job(f"很长很长的句子，第{n}句，" * 10) for n in range(2)]
    await publish(topics_ready, jobs)
    # One lane, about 5 s a job: the slot is full for longer than the group allows between two polls.
    settings = worker_settings(topics_ready, redis_settings, lanes=1, tone_realtime_factor=0.25)
    async with listening(topics_ready) as heard, working(settings):
        await eventually(lambda: len(heard.finished_jobs()) == 2, 60)
        await all_committed(topics_ready, 2)
    assert len(heard.chunks) == 2, "no take was begun twice"
    assert len(assignments) == 1, "the group never had to settle again"


async def test_takes_outlive_a_rebalance_where_their_partition_stays(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders: dict[int, int] = {}  # slot: partitions it was given last
    finished_then: list[int] = []  # takes that had ended when both slots held some

    async def assigned(slot: Slot, partitions: frozenset[TopicPartition]) -> None:
        holders[id(slot)] = len(partitions)
        if sum(count > 0 for count in holders.values()) == 2:
            finished_then.append(len(heard.finished))
        await former(slot, partitions)

    former = Slot.assigned
    monkeypatch.setattr(Slot, "assigned", assigned)
    jobs = [make_job(f"说得很久的句子，第{n}句，" * 12) for n in range(8)]
    await publish(topics_ready, jobs)
    settings = worker_settings(
        topics_ready, redis_settings, lanes=8, tone_realtime_factor=0.12, tone_lanes=8, revoke_drain_s=0.3
    )
    async with listening(topics_ready) as heard, working(settings):
        await eventually(lambda: len(heard.chunks) == 8, 30, "every job has a lane")
        under_way = set(heard.chunks)
        async with working(settings):
            await eventually(lambda: len(heard.finished_jobs()) == 8, 90)
            await all_committed(topics_ready, 8)
    outlived = [event for event in heard.finished if event.take_id in under_way]
    assert finished_then[0] == 0, "the rebalance came in the middle of all takes"
    assert outlived, "some partitions stayed, and their takes went on"
    for event in heard.finished:
        heard.check_audio(event)
    assert {event.code for event in heard.abandoned} <= {ErrorCode.INTERNAL}
    assert not heard.failed
