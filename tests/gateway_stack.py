"""A whole embedded stack for tests of the gateway, as a process of its own, and more gateways beside it."""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import httpx

from infra.embedded import launcher
from infra.embedded.endpoints import as_environment, load
from tests.environment import environment
from tests.gateway_world import until_ready
from tests.waiting import eventually

VOXBUS = [sys.executable, "-c", "from infra.cli import main; main()"]
_START_TIMEOUT_S = 90.0


@contextmanager
def running_stack(folder: Path, *options: str, **settings: str) -> Iterator[Path]:
    """`voxbus up`, until the block ends.

    Args:
        folder: for its data and its log.
        options: of `voxbus up`.
        settings: environment variables.

    Yields:
        Its data directory.
    """
    tied = [sys.executable, launcher.__file__, str(os.getpid()), *VOXBUS]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*tied, "up", "--data-dir", str(folder / "data"), *options],
            env={**environment(), **settings},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda stdout: lines.put(stdout.readline()), args=(process.stdout,), daemon=True).start()
    with closing(process.stdout):
        try:
            assert lines.get(timeout=_START_TIMEOUT_S), (folder / "up.log").read_text()
            yield folder / "data"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@asynccontextmanager
async def gateway_process(data: Path, log: Path, keys: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One more gateway of a stack, in a process of its own, which asks for keys and logs all it can."""
    stack = load(data / "endpoints.json")
    told = {"LOG__LEVEL": "DEBUG", "GATEWAY__PORT": "0", "GATEWAY__API_KEYS_FILE": str(keys)}
    told["GATEWAY__DEDUP_WEB"] = str(stack.dedup_web)
    variables = environment(as_environment(stack) | {f"VOXBUS_{name}": value for name, value in told.items()})
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "producers.gateway", env=variables, stdout=output, stderr=output
        )
    try:

        def port() -> int | None:
            whole_lines = log.read_text().rpartition("\n")[0].splitlines()
            lines = (json.loads(line) for line in whole_lines if line.startswith("{"))
            return next((line["port"] for line in lines if line["event"] == "listening" and "port" in line), None)

        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{await eventually(port, 30)}", timeout=10) as http:
            await until_ready(http)
            yield http
    finally:
        process.terminate()
        await process.wait()
