"""Waiting for a condition under a deadline, instead of sleeping for a guessed time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    condition: Callable[[], T | Awaitable[T]], timeout_s: float = 10.0, what: str = "", *, every_s: float = 0.05
) -> T:
    """Ask again and again until `condition` answers something true, and return that.

    Args:
        condition: a function or coroutine function. An AssertionError in it counts as "not yet".
        timeout_s: how long to ask.
        what: what is waited for, for the message.
        every_s: pause between two questions.

    Raises:
        AssertionError: it did not come true; names what was waited for, and the last answer or failed assertion.
    """
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            answer = condition()
            result: T = await answer if inspect.isawaitable(answer) else answer
            if result:
                return result
            last = f"last answer: {result!r}"
        except AssertionError as error:
            last = f"last failure: {error}"
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"not within {timeout_s:g} s: {name}; {last}")
        await asyncio.sleep(every_s)
