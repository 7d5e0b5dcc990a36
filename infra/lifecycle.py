"""How a stage starts and ends: signals become one event, the drain has one deadline, a failed part ends the rest."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Deadline:
    """A moment shared by every step of one procedure, so that the steps together take no longer than one budget."""

    budget_s: float
    started: float = field(default_factory=time.monotonic)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.started + self.budget_s - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.remaining_s <= 0.0


class StoppedWhileStartingError(Exception):
    """`stop` was set before the start was over; what had begun is undone."""


@asynccontextmanager
async def starting(stop: asyncio.Event) -> AsyncIterator[None]:
    """Give the block up as soon as `stop` is set: a stage that waits for its bus still ends when it is told to.

    Enter what the stage needs onto an `AsyncExitStack` within the block, and do its work after it.

    Raises:
        StoppedWhileStartingError: `stop` was set; `stop_on_signals` takes it for a stop in good order.
    """
    starter = asyncio.current_task()
    assert starter is not None, "within a task"
    given_up = False

    async def give_up() -> None:
        nonlocal given_up
        await stop.wait()
        given_up = True
        starter.cancel()

    watching = asyncio.create_task(give_up())
    try:
        yield
    except asyncio.CancelledError:
        if given_up and starter.uncancel() == 0:
            raise StoppedWhileStartingError from None
        raise
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if given_up:  # just as the block ended: the work itself sees `stop`
        starter.uncancel()


@contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT while the block runs; the former handlers come back afterwards.

    The second signal, of whichever kind, is let through, so that an impatient operator can end a slow drain. A start
    that `starting` cut short is a stop in good order.
    """
    loop = asyncio.get_running_loop()
    watched = (signal.SIGTERM, signal.SIGINT)
    former = {number: signal.getsignal(number) for number in watched}

    def on_signal() -> None:
        stop.set()
        for number in watched:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in watched:
        loop.add_signal_handler(number, on_signal)
    try:
        with suppress(StoppedWhileStartingError):
            yield
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
            signal.signal(number, former[number])


class TaskFailedError(Exception):
    """A background task ended although it should have run on."""

    def __init__(self, name: str) -> None:
        super().__init__(f"background task {name!r} ended unexpectedly")


async def run_until_stopped(stop: asyncio.Event, **tasks: Coroutine[Any, Any, None]) -> None:
    """Run the named coroutines until `stop` is set or one of them ends; then cancel the rest and wait for them.

    Raises:
        TaskFailedError: one ended without `stop`; its own exception is the cause.
    """
    running = {asyncio.create_task(coroutine, name=name) for name, coroutine in tasks.items()}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            if not stop.is_set() or (not task.cancelled() and task.exception()):
                cause = None if task.cancelled() else task.exception()
                raise TaskFailedError(task.get_name()) from cause
    finally:
        for task in (*running, stopping):
            task.cancel()
        await asyncio.gather(*running, stopping, return_exceptions=True)


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the block and cancel them at its end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
