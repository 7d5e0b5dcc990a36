"""Counts under which jobs engines died, so that a job that kills its engine again and again comes to an end.

A count is raised when a take begins and lowered when it ends without harm; what is left are deaths, also when the
whole worker died with its engines. The counts live in Redis; an absent Redis costs only what other workers saw.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra.logging import get_logger
from infra.settings import RedisSettings

_log = get_logger(__name__)

_TTL_S = 6 * 3_600
"""Longer than any job is driven again; a count nobody asks for any more goes away."""
_REMEMBERED = 10_000
# After a failure Redis is left alone for a while, so that an absent one does not slow every take.
_PAUSE_S = 5.0


class Suspects(Protocol):
    """Counts of deaths by job."""

    async def deaths(self, job_id: str) -> int:
        """Takes of this job that began and never ended."""

    async def begin(self, job_id: str) -> int:
        """A take is about to go into an engine; how many began before and never ended."""

    async def unharmed(self, job_id: str) -> None:
        """The take ended, and the engine lives."""

    async def forget(self, job_id: str) -> None:
        """The job came to its end."""


class LocalSuspects:
    """Counts of this process only, bounded."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def deaths(self, job_id: str) -> int:
        """Takes of this job that began and never ended."""
        return self._counts.get(job_id, 0)

    async def begin(self, job_id: str) -> int:
        """A take is about to go into an engine; how many began before and never ended."""
        before = self._counts.pop(job_id, 0)
        self._counts[job_id] = before + 1
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        return before

    async def unharmed(self, job_id: str) -> None:
        """The take ended, and the engine lives."""
        left = self._counts.pop(job_id, 0) - 1
        if left > 0:
            self._counts[job_id] = left

    async def forget(self, job_id: str) -> None:
        """The job came to its end."""
        self._counts.pop(job_id, None)


class SharedSuspects:
    """Counts in Redis, with those of this process beside them for when it does not answer."""

    def __init__(self, redis: Redis, settings: RedisSettings) -> None:
        self._redis = redis
        self._prefix = f"{settings.namespace}synth:begun:"
        self._timeout_s = settings.timeout_s
        self._local = LocalSuspects()
        self._silent_until = 0.0  # loop time

    async def deaths(self, job_id: str) -> int:
        """Takes of this job that began and never ended, as far as is known."""
        shared = await self._ask(("GET", self._prefix + job_id))
        # Below zero after a raise got lost on its way: one death is then not counted.
        return max(int(shared or 0), await self._local.deaths(job_id))

    async def begin(self, job_id: str) -> int:
        """A take is about to go into an engine; written before, so that it outlives this process."""
        before = await self._local.begin(job_id)
        key = self._prefix + job_id
        counted = await self._ask(("INCR", key), ("EXPIRE", key, str(_TTL_S)))
        return max(before, int(counted or 0) - 1)

    async def unharmed(self, job_id: str) -> None:
        """The take ended, and the engine lives."""
        await self._local.unharmed(job_id)
        key = self._prefix + job_id
        await self._ask(("DECR", key), ("EXPIRE", key, str(_TTL_S)))

    async def forget(self, job_id: str) -> None:
        """The job came to its end."""
        await self._local.forget(job_id)
        await self._ask(("DEL", self._prefix + job_id))

    async def _ask(self, *commands: tuple[str, ...]) -> bytes | int | None:
        """The answer to the first command, all sent in one go; None when Redis does not answer."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent_until:
            return None
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            async with asyncio.timeout(self._timeout_s):
                answers: list[bytes | int | None] = await pipeline.execute()
                return answers[0]
        except (RedisError, OSError, TimeoutError) as error:
            self._silent_until = loop.time() + _PAUSE_S
            _log.warning("redis does not answer; counts of this worker only", error=type(error).__name__)
            return None


@asynccontextmanager
async def shared_suspects(settings: RedisSettings) -> AsyncIterator[SharedSuspects]:
    """Counts in Redis while the block runs; needs no answer to start."""
    redis = Redis.from_url(settings.url.get_secret_value(), socket_connect_timeout=settings.timeout_s)
    try:
        yield SharedSuspects(redis, settings)
    finally:
        await redis.aclose()
