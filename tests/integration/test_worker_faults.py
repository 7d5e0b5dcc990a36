"""Engines and workers that die or hang in the middle of a take: every job still comes to one end."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from infra.kafka.work import WorkConsumer, work_consumer
from infra.settings import HealthSettings, KafkaSettings, RedisSettings
from schemas.codes import ErrorCode
from schemas.dead_letters import read_dead_letter
from synth_consumer.worker import slot
from synth_consumer.worker.app import run_worker
from synth_consumer.worker.job_book import JobBook, RunningJob
from synth_consumer.worker.job_speaker import JobSpeaker
from tests.integration.worker_bench import (
    Heard,
    all_committed,
    children_of,
    committed_records,
    is_alive,
    listening,
    make_job,
    publish,
    worker_process,
    worker_settings,
    working,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def _engine_of_a_running_take(heard: Heard) -> int:
    await eventually(lambda: heard.chunks, 30, "a first chunk")
    [engine] = children_of(os.getpid())
    return engine


async def test_an_engine_killed_in_a_take_is_replaced_and_the_job_spoken_again(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    jobs = [make_job(f"第{n}个长句子，慢慢地说，" * 8) for n in range(3)]
    await publish(topics_ready, jobs)
    settings = worker_settings(topics_ready, redis_settings, tone_realtime_factor=0.05)
    async with listening(topics_ready) as heard, working(settings):
        os.kill(await _engine_of_a_running_take(heard), signal.SIGKILL)
        await eventually(lambda: len(heard.finished_jobs()) == 3, 60)
        await all_committed(topics_ready, 3)
    good = {event.take_id for event in heard.finished}
    assert len(good) == 3
    for event in heard.finished:
        heard.check_audio(event)
    assert heard.abandoned, "the takes that died are given up"
    assert {event.take_id for event in heard.abandoned} == set(heard.chunks) - good
    assert {event.code for event in heard.abandoned} == {ErrorCode.ENGINE_CRASHED}
    assert not heard.failed


async def test_an_engine_that_hangs_is_replaced(topics_ready: KafkaSettings, redis_settings: RedisSettings) -> None:
    job = make_job("这一句话会停在半路上，" * 10)
    await publish(topics_ready, [job])
    settings = worker_settings(topics_ready, redis_settings, tone_realtime_factor=0.1, step_timeout_s=4.0)
    async with listening(topics_ready) as heard, working(settings):
        os.kill(await _engine_of_a_running_take(heard), signal.SIGSTOP)
        await eventually(lambda: heard.finished, 60)
        await all_committed(topics_ready, 1)
    assert [event.code for event in heard.abandoned] == [ErrorCode.ENGINE_TIMEOUT]
    assert heard.finished[0].attempts == 2
    heard.check_audio(heard.finished[0])


async def test_a_job_that_kills_every_engine_ends_and_its_neighbours_do_not(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    poison, errors = make_job("⟦crash⟧ 你好"), make_job("⟦raise⟧ 你好")
    innocent = [make_job(f"无辜的句子{n}，" * 6) for n in range(6)]
    await publish(topics_ready, [*innocent[:2], poison, *innocent[2:4], errors, *innocent[4:]])
    settings = worker_settings(topics_ready, redis_settings, lanes=4, tone_realtime_factor=0.02)
    async with listening(topics_ready) as heard, working(settings):
        await eventually(lambda: len(heard.finished_jobs()) == 6 and len(heard.failed) == 2, 90)
        await all_committed(topics_ready, 8)
    assert {event.job_id: event.code for event in heard.failed} == {
        poison.job_id: ErrorCode.ENGINE_CRASHED,
        errors.job_id: ErrorCode.ENGINE_CRASHED,
    }
    assert {read_dead_letter(letter.headers).code for letter in heard.dead} == {ErrorCode.ENGINE_CRASHED}
    assert len(heard.dead) == 2
    assert heard.finished_jobs() == {job.job_id for job in innocent}


async def test_a_killed_worker_takes_its_engine_along_and_another_one_does_its_work(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    jobs = [make_job(f"第{n}个长句子，慢慢地说，" * 6) for n in range(4)]
    await publish(topics_ready, jobs)
    settings = worker_settings(topics_ready, redis_settings, tone_realtime_factor=0.05)
    async with listening(topics_ready) as heard:
        async with worker_process(settings) as first:
            await eventually(lambda: heard.chunks, 60, "a first chunk")
            engines = children_of(first.pid)
            assert engines
            first.kill()
            await first.wait()
            await eventually(lambda: not any(is_alive(engine) for engine in engines), 5, "engines gone")
        async with worker_process(settings):
            await eventually(lambda: len(heard.finished_jobs()) == 4, 90)
            await all_committed(topics_ready, 4)
    for event in heard.finished:
        heard.check_audio(event)
    assert not heard.failed


async def test_sigterm_finishes_what_is_in_hand_and_exits_0(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    jobs = [make_job(f"第{n}个长句子，慢慢地说，" * 6) for n in range(6)]
    await publish(topics_ready, jobs)
    settings = worker_settings(topics_ready, redis_settings, tone_realtime_factor=0.05)
    async with listening(topics_ready) as heard, worker_process(settings) as process:
        await eventually(lambda: heard.chunks, 60, "a first chunk")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        # One record a job: what is committed tells how many takes there are to be heard of.
        committed = await committed_records(topics_ready)
        await eventually(lambda: len(heard.finished) == len(heard.chunks) == committed, 10, "no take was cut off")
        assert not heard.abandoned
        assert 1 <= committed < 6


async def test_an_engine_that_dies_while_its_slot_joins_costs_no_worker(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[int] = []

    @asynccontextmanager
    async def joining(*args: Any, **options: Any) -> AsyncIterator[WorkConsumer]:
        keeper = options["hooks"]._keeper
        async with work_consumer(*args, **options) as work:
            if not deaths:
                deaths.append(keeper.pid)
                os.kill(keeper.pid, signal.SIGKILL)
                await eventually(lambda: not keeper.up.is_set(), 10, "the engine is missed")
            yield work

    monkeypatch.setattr(slot, "work_consumer", joining)
    await publish(topics_ready, [make_job("你好")])
    settings = worker_settings(topics_ready, redis_settings, restart_delay_s=1.0)
    async with listening(topics_ready) as heard, working(settings):
        await eventually(lambda: heard.finished, 60)
        await all_committed(topics_ready, 1)
    assert deaths


async def test_a_defect_ends_the_worker_and_not_the_job(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defective(*_: object) -> None:
        raise LookupError("ours")

    await publish(topics_ready, [make_job("你好")])
    settings = worker_settings(topics_ready, redis_settings)
    async with listening(topics_ready) as heard:
        with monkeypatch.context() as patch:
            patch.setattr(JobSpeaker, "speak", defective)
            with pytest.raises(LookupError, match="ours"):
                await asyncio.wait_for(run_worker(settings, asyncio.Event()), 60)
        async with working(settings):
            await eventually(lambda: heard.finished, 60)
            await all_committed(topics_ready, 1)


async def test_a_job_cancelled_before_its_first_step_is_finished(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word of it may come in the same turn of the event loop in which the job is taken in hand."""
    former, cancelled = JobBook.begin, make_job("这一句没人要了")

    def begin(book: JobBook, running: RunningJob) -> None:
        former(book, running)
        asyncio.get_running_loop().call_soon(book.cancel, cancelled.job_id)

    monkeypatch.setattr(JobBook, "begin", begin)
    await publish(topics_ready, [cancelled])
    async with listening(topics_ready) as heard, working(worker_settings(topics_ready, redis_settings)):
        await all_committed(topics_ready, 1)
    assert not heard.finished


async def test_readiness_follows_the_engine_and_the_group(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        health = HealthSettings(port=probe.getsockname()[1])
    # The engine's second start waits long enough to be seen missing.
    settings = worker_settings(topics_ready, redis_settings, restart_delay_s=2.0).model_copy(update={"health": health})
    async with aiohttp.ClientSession(f"http://127.0.0.1:{health.port}") as http, working(settings):

        async def ready_is(status: int) -> bool:
            try:
                async with http.get("/readyz") as answer:
                    return answer.status == status
            except aiohttp.ClientConnectionError:
                return False

        await eventually(lambda: ready_is(200), 30, "ready without a single job")
        [engine] = children_of(os.getpid())
        os.kill(engine, signal.SIGKILL)
        await eventually(lambda: ready_is(503), 10, "not ready without an engine")
        await eventually(lambda: ready_is(200), 30, "ready again")
        async with http.get("/metrics") as answer:
            assert "voxbus_synth_engine_restarts_total" in await answer.text()
