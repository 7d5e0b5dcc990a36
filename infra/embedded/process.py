"""Starting and ending one child process, so that nothing of it outlives the supervisor."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.embedded.child import ChildSpec
from infra.embedded.files import open_log

_LAUNCHER = Path(__file__).with_name("launcher.py")
_GUARDIAN = Path(__file__).with_name("guardian.py")
# Without site-packages and user paths: starts in 15 ms, and nothing in the environment can change what it does.
_BARE_PYTHON = (sys.executable, "-I", "-S")


class Guardian:
    """The list of process groups that must not outlive this process."""

    def __init__(self, pipe: asyncio.StreamWriter) -> None:
        self._pipe = pipe

    def add(self, group: int) -> None:
        """Kill this group when we are gone."""
        self._pipe.write(b"+%d\n" % group)

    def discard(self, group: int) -> None:
        """It has ended."""
        self._pipe.write(b"-%d\n" % group)


@asynccontextmanager
async def guardian() -> AsyncIterator[Guardian]:
    """Run the guardian process beside the block."""
    process = await asyncio.create_subprocess_exec(
        *_BARE_PYTHON, str(_GUARDIAN), stdin=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    try:
        yield Guardian(process.stdin)
    finally:
        process.stdin.close()
        await process.wait()


async def start(spec: ChildSpec, guard: Guardian, *, lock: int | None = None) -> asyncio.subprocess.Process:
    """Start a child in a session of its own: Ctrl-C in the terminal reaches the supervisor alone.

    Args:
        spec: what to run.
        guard: learns of its process group.
        lock: descriptor of the data directory's lock; servers hold it as long as they live.
    """
    spec.prepare()
    log = open_log(spec.log)
    try:
        process = await asyncio.create_subprocess_exec(
            *_BARE_PYTHON,
            str(_LAUNCHER),
            str(os.getpid()),
            *spec.argv,
            env=dict(spec.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,) if lock is not None and spec.kind == "server" else (),
        )
    finally:
        os.close(log)
    guard.add(process.pid)
    return process


async def end(process: asyncio.subprocess.Process, spec: ChildSpec, guard: Guardian) -> None:
    """SIGTERM to the child, which then drains; SIGKILL to whatever of its group is left after it or the deadline."""
    try:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), spec.stop_timeout_s)
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        guard.discard(process.pid)
        spec.cleanup()
