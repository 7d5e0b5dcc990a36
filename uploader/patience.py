"""How long the uploader keeps trying when a server does not answer."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 10.0

T = TypeVar("T")


def delays() -> Iterator[float]:
    """Seconds between attempts: doubling from 0.2 to 10, each shortened by chance so that many do not knock at once."""
    delay = _FIRST_DELAY_S
    while True:
        # Spread, not secrecy.
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311
        delay = min(delay * 2, _LONGEST_DELAY_S)


class Patience:
    """Until when one piece of work goes on trying. Tries at least once, however late it is."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @classmethod
    def until(cls, deadline: datetime | None, *, otherwise_s: float) -> "Patience":
        """Until a moment, or for so many seconds where there is none."""
        if deadline is None:
            return cls(otherwise_s)
        return cls((deadline - datetime.now(UTC)).total_seconds())

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._until

    async def insist(
        self,
        operation: Callable[[], Awaitable[T]],
        *,
        on: type[Exception] | tuple[type[Exception], ...],
        retrying: Callable[[], None] = lambda: None,
    ) -> T:
        """Call `operation` until it succeeds.

        Args:
            operation: safe to repeat.
            on: what is worth another attempt; anything else is raised at once.
            retrying: called when an attempt failed and another follows.

        Raises:
            Exception: the last error, when the time is up.
        """
        for delay in delays():
            try:
                return await operation()
            except on:
                if self.over:
                    raise
            retrying()
            await asyncio.sleep(min(delay, max(0.05, self._until - time.monotonic())))
        raise AssertionError("delays never end")
