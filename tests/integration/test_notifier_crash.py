"""The notifier is killed without a word, and goes on as if nothing had happened."""

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from infra.settings import KafkaSettings
from notifier.signing import webhook_id
from schemas import topics
from schemas.deliveries import DeliveryState
from tests.environment import environment
from tests.notifier_world import SECRET, attempts_of, publish_completions, read_all, receiving
from tests.waiting import eventually


def variables(kafka: KafkaSettings, **notifier: str) -> dict[str, str]:
    given = {
        "VOXBUS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "VOXBUS_KAFKA__NAMESPACE": kafka.namespace,
        "VOXBUS_KAFKA__PARTITIONS": str(kafka.partitions),
        "VOXBUS_KAFKA__ENABLE_IDEMPOTENCE": str(kafka.enable_idempotence).lower(),
        "VOXBUS_KAFKA__FETCH_MAX_WAIT_MS": str(kafka.fetch_max_wait_ms),
        "VOXBUS_KAFKA__SESSION_TIMEOUT_MS": str(kafka.session_timeout_ms),
        "VOXBUS_KAFKA__HEARTBEAT_INTERVAL_MS": str(kafka.heartbeat_interval_ms),
        "VOXBUS_NOTIFIER__SIGNING_SECRET": SECRET,
        "VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS": '["127.0.0.0/8"]',
        "VOXBUS_NOTIFIER__TIMEOUT_S": "1",
    }
    return environment(given | {f"VOXBUS_NOTIFIER__{name.upper()}": value for name, value in notifier.items()})


@asynccontextmanager
async def notifier_process(
    kafka: KafkaSettings, log: Path, *, drain_s: float = 20.0, **notifier: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m notifier`, killed at the end of the block if it still runs."""
    given = variables(kafka, **notifier) | {"VOXBUS_DRAIN_TIMEOUT_S": str(drain_s)}
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "notifier", env=given, stderr=stderr)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_killed_between_attempts_it_delivers_under_the_same_id(
    topics_ready: KafkaSettings, tmp_path: Path
) -> None:
    failing = True

    async def fail_until_killed(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=500 if failing else 204)

    retry = {"retry_delays_s": "[0, 2, 2, 2]"}
    async with receiving(fail_until_killed) as receiver:
        async with notifier_process(topics_ready, tmp_path / "log", **retry):
            await publish_completions(topics_ready, ["r-1"], receiver.url)
            await eventually(lambda: receiver.attempts.total() >= 1, 30)
            # Killed as soon as the wait is on the bus; nothing of it is in memory any more afterwards.
            await eventually(lambda: waits(topics_ready), 10)
        failing = False
        async with notifier_process(topics_ready, tmp_path / "log", **retry):
            await eventually(lambda: receiver.accepted.total() == 1, 30)
    assert set(receiver.attempts) == {webhook_id("r-1")}


async def waits(kafka: KafkaSettings) -> bool:
    return bool(await read_all(kafka, topics.DELIVERY_RETRIES[0]))


async def test_sigterm_drains_and_exits_clean(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async with receiving() as receiver, notifier_process(topics_ready, tmp_path / "log") as process:
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: receiver.accepted.total() == 1, 30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_hanging_attempt_does_not_hold_up_the_end(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async def hangs_first(_request: web.Request, before: int) -> web.StreamResponse:
        if not before:
            await asyncio.sleep(60)
        return web.Response(status=204)

    async with receiving(hangs_first) as receiver:
        async with notifier_process(topics_ready, tmp_path / "log", drain_s=1.0, timeout_s="50") as process:
            await publish_completions(topics_ready, ["r-1"], receiver.url)
            await eventually(lambda: receiver.attempts.total() == 1, 30)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 15) == 0
        async with notifier_process(topics_ready, tmp_path / "log"):
            await eventually(lambda: receiver.accepted.total() == 1, 30)


async def test_the_other_member_takes_over(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    """Two notifiers share the work; one is killed with deliveries in hand and others waiting."""
    names = [f"r-{n}" for n in range(100)]

    chance = random.Random(3)

    async def unreliable(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=204 if chance.random() < 0.6 else 503)

    retry = {"retry_delays_s": "[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"}
    async with receiving(unreliable) as receiver, notifier_process(topics_ready, tmp_path / "a", **retry):
        async with notifier_process(topics_ready, tmp_path / "b", **retry):
            await eventually(lambda: all((tmp_path / n).read_text().count("taking completions") for n in "ab"), 40)
            await publish_completions(topics_ready, names, receiver.url)
            await eventually(lambda: len(receiver.attempts) > 20, 30)
        await eventually(lambda: len(receiver.accepted) == len(names), 60)
    assert set(receiver.accepted) == {webhook_id(name) for name in names}


async def test_bad_receiver_and_kills_lose_nothing(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    """300 completions, 30% failing, 5% hanging, the notifier killed three times in the middle of it."""
    chance = random.Random(7)
    names = [f"r-{n}" for n in range(300)]

    async def unreliable(_request: web.Request, _before: int) -> web.StreamResponse:
        lot = chance.random()
        if lot < 0.05:
            await asyncio.sleep(60)
        return web.Response(status=500 if lot < 0.35 else 204)

    retry = {"retry_delays_s": "[0, 0.3, 0.5, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]"}
    async with receiving(unreliable) as receiver:
        await publish_completions(topics_ready, names, receiver.url)
        for share in (0.2, 0.5, 0.7):
            async with notifier_process(topics_ready, tmp_path / "log", **retry):
                goal = int(share * len(names))
                await eventually(lambda goal=goal: len(receiver.accepted) >= goal, 30)  # type: ignore[misc]
        async with notifier_process(topics_ready, tmp_path / "log", **retry) as process:
            # A 2xx whose event a kill prevented is asked for again, and may fail then: only what is noted has ended.
            await eventually(lambda: all_noted(topics_ready, names), 60, "every delivery is noted", every_s=0.5)
            process.send_signal(signal.SIGTERM)
            await process.wait()
    assert set(receiver.accepted) == set(receiver.attempts) == {webhook_id(name) for name in names}
    assert receiver.forged == 0
    assert not await read_all(topics_ready, topics.DEAD_LETTERS)
    # An answer whose event the crash prevented is asked for once more; one that was noted never is.
    assert await noted(topics_ready) == dict.fromkeys(names, 1)


async def noted(kafka: KafkaSettings) -> Counter[str]:
    return Counter(e.request_id for e in await attempts_of(kafka) if e.state is DeliveryState.DELIVERED)


async def all_noted(kafka: KafkaSettings, names: list[str]) -> bool:
    return (await noted(kafka)).keys() == set(names)
