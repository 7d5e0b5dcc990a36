"""Jobs in, takes out, over a real broker with real engine processes."""

from datetime import timedelta

import pytest

from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings, RedisSettings
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Message
from schemas.codes import ErrorCode, Priority, State
from schemas.dead_letters import read_dead_letter
from tests.integration.worker_bench import all_committed, listening, make_job, publish, worker_settings, working
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def test_jobs_become_takes_whose_chunks_add_up(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    jobs = [
        make_job(f"第{n}句话，你好，欢迎致电。", Priority.BULK if n % 3 == 0 else Priority.INTERACTIVE)
        for n in range(12)
    ]
    await publish(topics_ready, jobs)
    async with listening(topics_ready) as heard, working(worker_settings(topics_ready, redis_settings, slots=2)):
        await eventually(lambda: len(heard.finished_jobs()) == len(jobs), 30)
        for event in heard.finished:
            heard.check_audio(event)
            assert event.attempts == 1
            assert event.engine.name == "tone"
            assert event.engine.seed == event.job.spec.seed
            first, *rest = heard.chunks[event.take_id]
            assert len(first.pcm) <= 0.3 * event.sample_rate * 2
            assert all(len(chunk.pcm) <= event.sample_rate * 2 for chunk in rest)
        assert {event.percent for event in heard.progress if event.state is State.SYNTHESIZING} >= {10}
        await all_committed(topics_ready, len(jobs))
    assert len(heard.finished) == len(jobs), "every job was spoken once"


async def test_what_cannot_be_spoken_ends_with_its_reason(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    refused, late = make_job("⟦refuse⟧ 你好"), make_job("太晚", deadline_at=utc_now() - timedelta(seconds=1))
    nan, memory, good = make_job("⟦nan⟧ 你好"), make_job("⟦oom⟧ 你好"), make_job("你好")
    async with bus_producer(topics_ready, client_id="test") as producer:
        await producer.deliver(topics.JOBS_INTERACTIVE, Message(b"k", b"{not json", (("traceparent", b"00-1-2-01"),)))
    await publish(topics_ready, [refused, late, nan, memory, good])
    async with listening(topics_ready) as heard, working(worker_settings(topics_ready, redis_settings)):
        await eventually(lambda: len(heard.failed) >= 4 and heard.finished and heard.dead, 30)
        await all_committed(topics_ready, 6)
    assert {event.job_id: (event.code, event.attempts) for event in heard.failed} == {
        refused.job_id: (ErrorCode.TEXT_NOT_SPEAKABLE, 1),
        late.job_id: (ErrorCode.DEADLINE_EXCEEDED, 1),
        nan.job_id: (ErrorCode.BAD_AUDIO, 3),
        memory.job_id: (ErrorCode.GPU_OUT_OF_MEMORY, 3),
    }
    assert heard.finished_jobs() == {good.job_id}
    [letter] = heard.dead
    assert letter.value == b"{not json"
    assert read_dead_letter(letter.headers).code is ErrorCode.INVALID_REQUEST


async def test_a_job_published_twice_is_spoken_once(topics_ready: KafkaSettings, redis_settings: RedisSettings) -> None:
    job = make_job("重复的话" * 20)
    await publish(topics_ready, [job, job, job])
    settings = worker_settings(topics_ready, redis_settings, tone_realtime_factor=0.05)
    async with listening(topics_ready) as heard, working(settings):
        await all_committed(topics_ready, 3)
        await publish(topics_ready, [job])
        await all_committed(topics_ready, 4)
    assert len(heard.finished) == 1
