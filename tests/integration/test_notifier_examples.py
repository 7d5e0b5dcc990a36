"""The example receivers, as a user starts them, take what our sender sends, and nobody else's."""

import asyncio
import importlib.util
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from notifier.probe import send_test
from notifier.settings import NotifierSettings
from tests.environment import environment
from tests.notifier_world import SECRET
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
async def example(*command: str, folder: Path, port: int) -> AsyncIterator[Path]:
    """A receiver process; yields the file its standard output goes to."""
    output = folder / "output"
    variables = environment({"VOXBUS_NOTIFIER__SIGNING_SECRET": SECRET, "PYTHONUNBUFFERED": "1"})
    with output.open("wb") as stdout, (folder / "errors").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=folder, env=variables, stdout=stdout, stderr=stderr
        )
    try:
        await eventually(lambda: answers(port), 30)
        yield output
    finally:
        process.terminate()
        await process.wait()


async def test_the_plain_receiver(tmp_path: Path) -> None:
    port = free_port()
    command = (str(EXAMPLES / "receiver.py"), "--port", str(port))
    async with example(*command, folder=tmp_path, port=port) as output:
        good = await send_test(SETTINGS, SECRET, f"http://127.0.0.1:{port}/any/path")
        forged = await send_test(SETTINGS, FORGED, f"http://127.0.0.1:{port}/")
        assert (good.status, forged.status) == (204, 401)
        assert output.read_text().count("webhook.test") == 1


@with_fastapi
async def test_the_fastapi_receiver(tmp_path: Path) -> None:
    port = free_port()
    command = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "receiver_fastapi:app", "--port", str(port))
    async with example(*command, folder=tmp_path, port=port) as output:
        good = await send_test(SETTINGS, SECRET, f"http://127.0.0.1:{port}/webhooks/speech")
        forged = await send_test(SETTINGS, FORGED, f"http://127.0.0.1:{port}/webhooks/speech")
        assert (good.status, forged.status) == (204, 401)
        assert output.read_text().count("webhook.test") == 1
