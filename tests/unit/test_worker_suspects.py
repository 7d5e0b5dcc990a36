"""Counts of deaths by job: in Redis where it answers, in this process where it does not."""

import pytest

from infra.settings import RedisSettings
from synth_consumer.worker.suspects import LocalSuspects, Suspects, shared_suspects


async def _story(counts: Suspects) -> list[int]:
    """A take that ended well, two that did not, and the job's end."""
    seen = []
    seen.append(await counts.begin("job"))
    await counts.unharmed("job")
    seen.append(await counts.deaths("job"))
    seen.append(await counts.begin("job"))
    seen.append(await counts.begin("job"))
    seen.append(await counts.deaths("job"))
    seen.append(await counts.deaths("other"))
    await counts.forget("job")
    seen.append(await counts.deaths("job"))
    return seen


async def test_takes_that_never_ended_are_counted() -> None:
    assert await _story(LocalSuspects()) == [0, 0, 0, 1, 2, 0, 0]


@pytest.mark.integration
async def test_counts_outlive_the_worker(redis_settings: RedisSettings) -> None:
    async with shared_suspects(redis_settings) as counts:
        assert await _story(counts) == [0, 0, 0, 1, 2, 0, 0]
        await counts.begin("job")
    async with shared_suspects(redis_settings) as counts:
        assert await counts.deaths("job") == 1


async def test_an_absent_redis_costs_only_what_others_saw(unused_port: int) -> None:
    settings = RedisSettings.model_validate({"url": f"redis://127.0.0.1:{unused_port}/0", "timeout_s": 0.2})
    async with shared_suspects(settings) as counts:
        assert await _story(counts) == [0, 0, 0, 1, 2, 0, 0]


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
