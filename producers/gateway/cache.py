"""What the gateway keeps in Redis, and how it lives without Redis: slower, never wrong.

Every read is bounded in time and answers a miss when Redis does not; every write may be lost.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra.settings import RedisSettings
from producers.gateway import metrics
from schemas.codes import AudioFormat
from schemas.completions import CompletionData
from schemas.renditions import CachedRendition, rendition_cache_key

ResultT = TypeVar("ResultT")


class Cache:
    """Renditions, ends of requests and idempotency keys."""

    def __init__(self, redis: "Redis", settings: RedisSettings) -> None:
        self._redis = redis
        self._namespace = settings.namespace
        self._timeout_s = settings.timeout_s

    async def rendition(self, fingerprint: str, audio_format: AudioFormat) -> CachedRendition | None:
        """The stored rendition; None when there is none, or Redis does not answer."""
        value = await self._bounded(self._redis.get(self._namespace + rendition_cache_key(fingerprint, audio_format)))
        if value is None:
            return None
        try:
            return CachedRendition.model_validate_json(value)
        except ValidationError:
            return None

    async def completion(self, request_id: str) -> CompletionData | None:
        """The end of a request that was answered here without the bus."""
        value = await self._bounded(self._redis.get(f"{self._namespace}completion:{request_id}"))
        return CompletionData.model_validate_json(value) if value else None

    async def keep_completion(self, completion: CompletionData, owner: str, ttl_s: int) -> None:
        """Remember an end that the bus does not know of, and whose it is."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(
            f"{self._namespace}completion:{completion.request_id}",
            completion.model_dump_json(exclude_none=True),
            ex=ttl_s,
        )
        pipe.set(f"{self._namespace}owner:{completion.request_id}", owner, ex=ttl_s)
        await self._bounded(pipe.execute())

    async def keep_owner(self, request_id: str, owner: str, ttl_s: int) -> None:
        """Remember which key a request belongs to."""
        await self._bounded(self._redis.set(f"{self._namespace}owner:{request_id}", owner, ex=ttl_s))

    async def owner(self, request_id: str) -> str | None:
        """Which key a request belongs to; None when unknown."""
        value = await self._bounded(self._redis.get(f"{self._namespace}owner:{request_id}"))
        return value.decode() if value else None

    async def claim(self, owner: str, key: str, content: str, ttl_s: int) -> tuple[str, bool] | None:
        """Bind an idempotency key to the request it first came with.

        Args:
            owner: name of the API key; keys of different owners never meet.
            key: the `Idempotency-Key`.
            content: `request_id digest` of this request.
            ttl_s: how long it is remembered.

        Returns:
            The content it is bound to, and whether this call bound it; None when Redis does not answer.
        """
        name = f"{self._namespace}idempotency:{owner}:{key}"
        pipe = self._redis.pipeline(transaction=True)
        pipe.set(name, content, ex=ttl_s, nx=True)
        pipe.get(name)
        result = await self._bounded(pipe.execute())
        if result is None:
            return None
        fresh, bound = result
        return bound.decode(), bool(fresh)

    async def _bounded(self, command: "Awaitable[ResultT]") -> ResultT | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await command
        except (RedisError, OSError, TimeoutError):
            metrics.REDIS_MISSES.inc()
            return None
