"""The example receivers, as a user starts them, take what our sender sends, and nobody else's."""

import asyncio
import importlib.util
import math
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from infra.settings import KafkaSettings
from notifier.history import Choice
from notifier.probe import send_test
from notifier.replay import Attempted, replay
from notifier.settings import NotifierSettings
from tests.environment import environment
from tests.notifier_world import SECRET, notifying, publish_completions, settings_for
from tests.unit.test_notifier_signing import PRIVATE_KEY
from tests.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = NotifierSettings(signing_secret=SecretStr(SECRET))
# Another sender's secret.
FORGED = "whsec_Zm9yZ2VkLWZvcmdlZC1mb3JnZWQtZm9yZ2VkLWZvcmdlZA=="

with_fastapi = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")),
    reason="fastapi and uvicorn not installed; voxbus itself does not need them",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/"):
            return True
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def example(*command: str, folder: Path, port: int, secrets: str = SECRET) -> AsyncIterator[Path]:
    """A receiver process; yields the file its standard output goes to, after that of earlier ones."""
    output = folder / "output"
    variables = environment({"VOXBUS_NOTIFIER__SIGNING_SECRET": secrets, "PYTHONUNBUFFERED": "1"})
    with output.open("ab") as stdout, (folder / "errors").open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=folder, env=variables, stdout=stdout, stderr=stderr
        )
    try:
        await eventually(lambda: answers(port), 30)
        yield output
    finally:
        process.terminate()
        await process.wait()


def fastapi_command(port: int) -> tuple[str, ...]:
    return ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "receiver_fastapi:app", "--port", str(port))


async def test_the_plain_receiver(tmp_path: Path) -> None:
    port = free_port()
    command = (str(EXAMPLES / "receiver.py"), "--port", str(port))
    # Given what the sender has, which may begin with a key that is not for HMAC.
    async with example(*command, folder=tmp_path, port=port, secrets=f"{PRIVATE_KEY} {SECRET}") as output:
        good = await send_test(SETTINGS, SECRET, f"http://127.0.0.1:{port}/any/path")
        forged = await send_test(SETTINGS, FORGED, f"http://127.0.0.1:{port}/")
        assert (good.status, forged.status) == (204, 401)
        assert output.read_text().count("webhook.test") == 1


@with_fastapi
async def test_the_fastapi_receiver(tmp_path: Path) -> None:
    port = free_port()
    async with example(*fastapi_command(port), folder=tmp_path, port=port, secrets=f"{PRIVATE_KEY} {SECRET}") as output:
        good = await send_test(SETTINGS, SECRET, f"http://127.0.0.1:{port}/webhooks/speech")
        forged = await send_test(SETTINGS, FORGED, f"http://127.0.0.1:{port}/webhooks/speech")
        assert (good.status, forged.status) == (204, 401)
        assert output.read_text().count("webhook.test") == 1


@with_fastapi
async def test_the_fastapi_receiver_takes_each_delivery_once(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    """Our notifier posts it three times, once to a new process; it is taken once."""
    port = free_port()

    def posts() -> int:
        return (tmp_path / "output").read_text().count('"POST /webhooks/speech HTTP/1.1" 204')

    async with notifying(settings_for(topics_ready)):
        async with example(*fastapi_command(port), folder=tmp_path, port=port) as output:
            await publish_completions(topics_ready, ["r-1"], f"http://127.0.0.1:{port}/webhooks/speech")
            await eventually(lambda: posts() == 1, 30, "the delivery")
            assert output.read_text().count("speech.failed r-1") == 1
            await replay(topics_ready, Attempted(Choice(frozenset({"r-1"}))))
            await eventually(lambda: posts() == 2, 30, "its replay")
        async with example(*fastapi_command(port), folder=tmp_path, port=port) as output:
            await replay(topics_ready, Attempted(Choice(frozenset({"r-1"}))))
            await eventually(lambda: posts() == 3, 30, "its replay to a new process")
    assert output.read_text().count("speech.failed r-1") == 1


def test_the_examples_name_the_span_of_the_schedule() -> None:
    delays = NotifierSettings().retry_delays_s
    span_h = sum(delays) / 3_600
    most_h = span_h * (1 + NotifierSettings().retry_jitter)
    for name in ("receiver.py", "receiver_fastapi.py"):
        text = (EXAMPLES / name).read_text().replace("\n# ", " ")
        assert f"takes {math.ceil(span_h)} hours, up to {math.ceil(most_h)} with jitter" in text
