"""One line to Redis for many callers: commands that come while an answer is awaited go together in the next round trip.

Under load a command then costs a share of a round trip instead of one of its own; alone it costs the same as ever.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from infra.settings import RedisSettings

_BATCH = 128  # commands in one round trip; an answer waits for the whole batch
_BACKLOG = 4_096  # commands waiting for their turn; beyond it Redis counts as not answering
_AWAY_FOR_S = 0.5  # how long a Redis that did not answer is not asked again: callers would all wait out their time


class RedisDownError(Exception):
    """Redis did not answer in time."""


class RedisLine:
    """Sends commands in batches over as few connections as the load needs."""

    def __init__(self, redis: "Redis", *, timeout_s: float, lines: int = 2) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self._free = lines
        self._away_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, *command: object) -> Any:
        """Run one command.

        Raises:
            RedisDownError: no answer in time, or an error instead of one.
        """
        if len(self._waiting) >= _BACKLOG or time.monotonic() < self._away_until:
            raise RedisDownError
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def close(self) -> None:
        """Stop asking; those who wait hear that Redis is down."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                await self._send(batch)
        finally:
            self._free += 1

    async def _send(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for command, _ in batch:
                        pipe.execute_command(*command)
                    answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError):
            self._away_until = time.monotonic() + _AWAY_FOR_S
            answers = [RedisError("no answer")] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(RedisDownError())
            else:
                future.set_result(answer)


@asynccontextmanager
async def redis_line(settings: RedisSettings) -> AsyncIterator[RedisLine]:
    """A line that is opened by its first command; Redis need not be there."""
    redis = Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    line = RedisLine(redis, timeout_s=settings.timeout_s)
    try:
        yield line
    finally:
        await line.close()
