"""The command as a process: how it ends when something is missing."""

import asyncio
import sys

import pytest

from infra.settings import KafkaSettings, RedisSettings
from tests.environment import environment

pytestmark = pytest.mark.integration


async def _run(env: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "synth_consumer.worker",
        env=env,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, err.decode()


async def test_an_engine_that_cannot_be_loaded_ends_the_worker_with_its_reason(
    topics_ready: KafkaSettings, redis_settings: RedisSettings
) -> None:
    variables = {"VOXBUS_SYNTH__ENGINE": "chattts", "VOXBUS_SYNTH__CHATTTS__DEVICE": "cpu"}
    code, err = await _run(environment(variables, kafka=topics_ready, redis=redis_settings))
    assert code == 1
    assert err.splitlines()[-1].startswith("voxbus: engine chattts cannot be loaded: ")
    assert "Traceback" not in err


async def test_a_bus_that_does_not_answer_is_named_with_its_address(redis_settings: RedisSettings) -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:9", start_timeout_s=1)
    env = environment({"VOXBUS_SYNTH__ENGINE": "tone"}, kafka=kafka, redis=redis_settings)
    code, err = await _run(env)
    assert code == 1
    assert "Kafka does not answer at 127.0.0.1:9" in err.splitlines()[-1]
    assert "Traceback" not in err
