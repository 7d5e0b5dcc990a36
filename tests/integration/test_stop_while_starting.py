"""SIGTERM ends a stage in good order also while it waits for its bus."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from infra.settings import KafkaSettings
from tests.environment import environment
from tests.waiting import eventually

_NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:9", start_timeout_s=60)


@pytest.mark.parametrize("module", ["synth_consumer.dedup", "synth_consumer.worker", "notifier"])
async def test_a_stage_without_its_bus_ends_when_told_to(module: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    secret = {"VOXBUS_NOTIFIER__SIGNING_SECRET": "whsec_" + "QUFB" * 8, "VOXBUS_SYNTH__ENGINE": "tone"}
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module), stderr=stream, env=environment(secret, kafka=_NOWHERE)
        )
    try:
        # A connection that is refused is what waiting for the bus looks like from outside.
        await eventually(lambda: "9" in log.read_text() and "Unable connect" in log.read_text(), 20, module)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0, log.read_text()
        assert time.monotonic() - began < 3
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
