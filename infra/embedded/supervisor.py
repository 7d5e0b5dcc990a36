"""Keeps children running: starts them in the order of their needs, starts again what dies, ends them in reverse."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict

from infra.embedded import process as processes
from infra.embedded.child import ChildSpec, GiveUp, RestartPolicy
from infra.embedded.files import last_lines, trim_log
from infra.embedded.ports import is_free
from infra.errors import UserError

ChildState = Literal["waiting", "starting", "ready", "restarting", "stopping", "stopped", "failed"]
_PROBE_EVERY_S = 0.04
_TRIM_EVERY_S = 30.0


class ChildView(BaseModel):
    """What is known of one child."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["server", "stage"]
    state: ChildState
    pid: int | None = None
    restarts: int = 0
    started_at: float | None = None
    """Of the process running now, seconds since the epoch."""
    ready_in_s: float | None = None
    """How long it took to serve."""
    last_end: str | None = None
    """Why the last process ended, to follow the words "it …"."""
    log: Path


class ChildFailedError(UserError):
    """A child cannot be kept running. Says which one, why, and what it wrote last."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        tail = "".join(f"\n    {line}" for line in last_lines(log))
        super().__init__(f"{name} {reason}; its log is {log}" + (f" and ends so:{tail}" if tail else " (empty)"))
        self.name = name


Listener = Callable[[ChildView], None]


class Child:
    """One child over all its lives. A single task owns the process, so starting and stopping never cross."""

    def __init__(
        self, spec: ChildSpec, guard: processes.Guardian, listener: Listener, policy: RestartPolicy, lock: int | None
    ) -> None:
        self.spec = spec
        self.view = ChildView(name=spec.name, kind=spec.kind, state="waiting", log=spec.log)
        self.served = asyncio.Event()
        self.stop_asked = asyncio.Event()
        self._guard, self._listener, self._policy, self._lock = guard, listener, policy, lock
        self._serving = False

    async def run(self) -> None:
        """Keep it running until `stop_asked`.

        Raises:
            ChildFailedError: it keeps dying.
        """
        deaths: list[float] = []
        unready = 0
        while not self.stop_asked.is_set():
            self._serving = False
            reason = await self._live_once()
            if self.stop_asked.is_set():
                break
            deaths.append(time.monotonic())
            del deaths[: -self._policy.max_deaths]
            unready = 0 if self._serving else unready + 1
            decision = self._policy.decide(deaths, deaths[-1], unready=unready)
            if isinstance(decision, GiveUp):
                self._change(state="failed", pid=None, last_end=reason)
                raise ChildFailedError(self.spec.name, f"{decision.why}, last because it {reason}", self.spec.log)
            self._change(state="restarting", pid=None, restarts=self.view.restarts + 1, last_end=reason)
            await _first(asyncio.sleep(decision.delay_s), self.stop_asked.wait())
        self._change(state="stopped", pid=None)

    async def _live_once(self) -> str:
        """One life from start to end.

        Returns:
            Why it ended, to follow the words "it …".
        """
        taken = [port for port in self.spec.ports if not is_free(port)]
        if taken:
            return f"found its port {taken[0]} taken by another program"
        process = await processes.start(self.spec, self._guard, lock=self._lock)
        began = time.monotonic()
        self._change(state="starting", pid=process.pid, started_at=time.time())
        try:
            if await self._await_ready(process):
                self._change(state="ready", ready_in_s=round(time.monotonic() - began, 2))
                self._serving = True
                self.served.set()
                await _first(process.wait(), self.stop_asked.wait())
            if process.returncode is None and not self.stop_asked.is_set():
                return f"did not answer within {self.spec.start_timeout_s:g} s"
        finally:
            if process.returncode is None:
                self._change(state="stopping")
            await processes.end(process, self.spec, self._guard)
        return _ending(process.returncode)

    async def _await_ready(self, process: asyncio.subprocess.Process) -> bool:
        until = time.monotonic() + self.spec.start_timeout_s
        while process.returncode is None and not self.stop_asked.is_set() and time.monotonic() < until:
            try:
                if await self.spec.probe():
                    return process.returncode is None
            except (OSError, TimeoutError):
                pass
            await _first(asyncio.sleep(_PROBE_EVERY_S), process.wait(), self.stop_asked.wait())
        return False

    def _change(self, **changes: object) -> None:
        self.view = self.view.model_copy(update=changes)
        self._listener(self.view)


class Supervisor:
    """All children of one stack. Use inside `process.guardian()`."""

    def __init__(
        self,
        guard: processes.Guardian,
        *,
        listener: Listener = lambda _: None,
        policy: RestartPolicy | None = None,
        lock: int | None = None,
    ) -> None:
        self._guard, self._listener, self._lock = guard, listener, lock
        self._policy = policy or RestartPolicy()
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: Exception | None = None
        self._failed = asyncio.Event()

    @property
    def views(self) -> list[ChildView]:
        """Every child, in the order of starting."""
        return [child.view for child in self._children.values()]

    async def start(self, specs: Sequence[ChildSpec]) -> None:
        """Start children, side by side where their needs allow, and wait until all of them serve.

        Raises:
            ChildFailedError: one of them does not come up, or an earlier one fell meanwhile.
        """
        children = [Child(spec, self._guard, self._listener, self._policy, self._lock) for spec in specs]
        self._children |= {child.spec.name: child for child in children}
        for child in children:
            self._tasks[child.spec.name] = asyncio.create_task(self._keep(child), name=child.spec.name)
        await _first(asyncio.gather(*(child.served.wait() for child in children)), self._failed.wait())
        if self._failure:
            raise self._failure

    async def run(self) -> NoReturn:
        """Wait, trimming logs, until a child fails for good.

        Raises:
            ChildFailedError: always, in the end.
        """
        while not self._failed.is_set():
            await _first(asyncio.sleep(_TRIM_EVERY_S), self._failed.wait())
            for child in self._children.values():
                await asyncio.to_thread(trim_log, child.spec.log)
        assert self._failure is not None
        raise self._failure

    async def stop(self) -> None:
        """End all, the last started first: stages drain while the servers still answer."""
        for name in reversed(list(self._children)):
            if self._children[name].spec.kind == "stage":
                await self._stop_one(name)
        await asyncio.gather(*(self._stop_one(name) for name in self._children))

    async def _stop_one(self, name: str) -> None:
        in_need = [child.spec.name for child in self._children.values() if name in child.spec.needs]
        if in_need:
            await asyncio.wait({self._tasks[other] for other in in_need})
        self._children[name].stop_asked.set()
        await asyncio.wait({self._tasks[name]})

    async def _keep(self, child: Child) -> None:
        for need in child.spec.needs:
            await _first(self._children[need].served.wait(), child.stop_asked.wait())
        try:
            await child.run()
        except OSError as error:
            self._fail(ChildFailedError(child.spec.name, f"cannot be started ({error})", child.spec.log))
        except Exception as error:  # a mistake of ours must end the stack too, not leave it one child short
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._failed.set()


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exited with code {code}"
    return f"was killed by signal {-code}"


async def _first(*awaitables: Awaitable[object]) -> None:
    """Wait for the first of several; the others are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
