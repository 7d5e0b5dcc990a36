"""Who listens to or waits for which request, over all gateways: work that nobody hears any more can be cancelled.

Each follower has a lease in Redis, so a gateway that dies leaves nothing behind for long. Without Redis nobody can
tell who else follows, and nothing is cancelled.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from producers.gateway.problems import ProblemError
from producers.gateway.redis_line import RedisDownError, RedisLine

_LEASE_S = 30  # more than clocks of gateways differ, and than Redis is away for in passing
_KEPT_S = 3_600  # the longest lease, and after which the leases of gateways that died are forgotten


class Audience:
    """Followers of requests. Does nothing unless `enabled`. Make one with `audience`."""

    def __init__(
        self,
        line: RedisLine,
        namespace: str,
        cancel: Callable[[str], Awaitable[None]],
        *,
        enabled: bool,
        grace_s: float,
    ) -> None:
        self._line, self._namespace, self._cancel = line, namespace, cancel
        self._enabled, self._grace_s = enabled, grace_s
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def follows(self, request_id: str) -> AsyncIterator[None]:
        """Somebody follows a request while the block runs."""
        if not self._enabled:
            yield
            return
        leasing = self._start(self._lease(self._key(request_id), uuid.uuid4().hex))
        try:
            yield
        finally:
            leasing.cancel()

    async def expects(self, request_id: str, within_s: float) -> None:
        """Somebody will come back for a request."""
        if self._enabled:
            with suppress(RedisDownError):
                await self._extend(self._key(request_id), uuid.uuid4().hex, min(within_s, _KEPT_S))

    def left(self, request_id: str) -> None:
        """Its listener left before the end: unless somebody follows it after a short grace, it is cancelled."""
        if self._enabled:
            self._start(self._cancel_unheard(request_id))

    async def close(self) -> None:
        """Cancel nothing any more, and take the leases back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lease(self, key: str, follower: str) -> None:
        try:
            while True:
                with suppress(RedisDownError):
                    await self._extend(key, follower, _LEASE_S)
                await asyncio.sleep(_LEASE_S / 3)
        finally:
            with suppress(RedisDownError):
                await self._line.ask("ZREM", key, follower)

    async def _extend(self, key: str, follower: str, seconds: float) -> None:
        await self._line.ask("ZADD", key, time.time() + seconds, follower)
        await self._line.ask("EXPIRE", key, _KEPT_S)

    async def _cancel_unheard(self, request_id: str) -> None:
        await asyncio.sleep(self._grace_s)
        try:
            followers = await self._line.ask("ZCOUNT", self._key(request_id), time.time(), "+inf")
        except RedisDownError:
            return
        if not followers:
            with suppress(ProblemError):
                await self._cancel(request_id)

    def _key(self, request_id: str) -> str:
        return f"{self._namespace}followers:{request_id}"

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@asynccontextmanager
async def audience(
    line: RedisLine, namespace: str, cancel: Callable[[str], Awaitable[None]], *, enabled: bool, grace_s: float
) -> AsyncIterator[Audience]:
    """An audience that is let go in good order."""
    one = Audience(line, namespace, cancel, enabled=enabled, grace_s=grace_s)
    try:
        yield one
    finally:
        await one.close()
