"""One life of an engine process, seen from the slot: start, commands, events, end."""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field

from schemas.codes import ErrorCode
from synth_consumer.worker.frames import (
    ChildEvent,
    Command,
    Crashed,
    FrameError,
    Open,
    Ready,
    Unavailable,
    pack,
    read_async,
)

_CHILD = "synth_consumer.worker.engine_child"
# Bytes of events that may wait in the parent; with the pipe's own 64 KiB this is what an engine can be ahead.
_READ_AHEAD_BYTES = 256 * 1024


class EngineGoneError(Exception):
    """The engine process died, hung, or speaks nonsense; all its takes are lost."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class EngineRefusedError(Exception):
    """The engine says it cannot be loaded here; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class EngineLaunch:
    """How to make an engine process."""

    opening: Open
    load_timeout_s: float
    step_timeout_s: float
    environment: dict[str, str] = field(default_factory=dict)  # added to our own, such as CUDA_VISIBLE_DEVICES


class EngineProcess:
    """A running, warm engine. Made by `start_engine`; `kill` it in the end."""

    def __init__(self, process: asyncio.subprocess.Process, launch: EngineLaunch) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._launch = launch
        self._hung_s: float | None = None
        self.ready: Ready

    @property
    def pid(self) -> int:
        """Process id, for logs and tests."""
        return self._process.pid

    def tell(self, command: Command) -> None:
        """Put a command into the pipe; never waits (commands are small, and at most `lanes` of them are open)."""
        if not self._stdin.is_closing():
            self._stdin.write(pack(command))

    async def hear(self) -> ChildEvent:
        """The next event.

        Raises:
            EngineGoneError: it died, or was declared hung.
        """
        return await self._next(None)

    def declare_hung(self, silent_s: float) -> None:
        """It said nothing for too long: end it; whoever hears learns why."""
        self._hung_s = silent_s
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def open(self) -> None:
        """Load and warm up.

        Raises:
            EngineRefusedError: it cannot be loaded here.
            EngineGoneError: it died, or took longer than `load_timeout_s`.
        """
        self.tell(self._launch.opening)
        event = await self._next(self._launch.load_timeout_s)
        if isinstance(event, Unavailable):
            raise EngineRefusedError(event.message)
        if not isinstance(event, Ready):
            raise EngineGoneError(ErrorCode.INTERNAL, f"engine process said {type(event).__name__} before it was ready")
        self.ready = event

    async def kill(self) -> None:
        """End the process at once and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._stdin.close()
        # A stopped reader may have paused the pipe; reading on lets the transport see the end and close itself.
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(5):
                while await self._stdout.read(_READ_AHEAD_BYTES):
                    pass
        await self._process.wait()

    async def _next(self, timeout_s: float | None) -> ChildEvent:
        try:
            async with asyncio.timeout(timeout_s):
                frame = await read_async(self._stdout)
        except TimeoutError:
            raise EngineGoneError(ErrorCode.ENGINE_TIMEOUT, f"engine was not ready within {timeout_s:g} s") from None
        except FrameError as error:
            raise EngineGoneError(ErrorCode.ENGINE_CRASHED, str(error)) from None
        if self._hung_s is not None:
            raise EngineGoneError(ErrorCode.ENGINE_TIMEOUT, f"engine process said nothing for {self._hung_s:g} s")
        if frame is None:
            raise EngineGoneError(ErrorCode.ENGINE_CRASHED, await self._how_it_ended())
        if isinstance(frame, Crashed):
            raise EngineGoneError(ErrorCode.ENGINE_CRASHED, f"engine raised {frame.error}")
        return frame  # type: ignore[return-value]  # a child sends events only

    async def _how_it_ended(self) -> str:
        try:
            async with asyncio.timeout(2):
                code = await self._process.wait()
        except TimeoutError:
            return "engine process closed its pipe"
        return f"engine process ended by signal {-code}" if code < 0 else f"engine process ended with status {code}"


async def start_engine(launch: EngineLaunch) -> EngineProcess:
    """Start a process and wait until its engine is warm.

    Raises:
        EngineRefusedError: it cannot be loaded here.
        EngineGoneError: it died, or took longer than `load_timeout_s`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _CHILD,
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_READ_AHEAD_BYTES,
        env={**os.environ, **launch.environment},
    )
    engine = EngineProcess(process, launch)
    try:
        await engine.open()
    except BaseException:
        await engine.kill()
        raise
    return engine
