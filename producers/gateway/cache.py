"""What the gateway keeps in Redis, and how it lives without Redis: slower, never wrong.

Every read is bounded in time and answers a miss when Redis does not; every write may be lost.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from infra.settings import RedisSettings
from producers.gateway import metrics
from producers.gateway.redis_line import RedisDownError, RedisLine
from schemas.codes import AudioFormat
from schemas.completions import CompletionData
from schemas.renditions import CachedRendition, rendition_cache_key

_FRESH_S = 120  # by then dedup has read a request, or the whole pipeline stands still
_FRESH_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Claim:
    """What a name in Redis is bound to."""

    content: str
    fresh: bool
    """Bound by this call."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the gateways remember of a request."""

    completion: CompletionData | None
    """Its end, when it was answered at a door or told there."""
    accepted: str | None
    """Its fingerprint, when some gateway accepted it a moment ago."""
    answered: bool
    """Whether Redis answered: what it did not say is then not there."""


class Cache:
    """Renditions, ends of requests, idempotency keys, and requests that dedup may not know yet."""

    def __init__(self, line: RedisLine, settings: RedisSettings) -> None:
        self._line = line
        self._namespace = settings.namespace
        self._fresh: OrderedDict[str, str] = OrderedDict()

    async def rendition(self, fingerprint: str, audio_format: AudioFormat) -> CachedRendition | None:
        """The stored rendition; None when there is none, or Redis does not answer."""
        value = await self._ask("GET", rendition_cache_key(fingerprint, audio_format))
        try:
            return CachedRendition.model_validate_json(value) if value else None
        except ValidationError:
            return None

    async def recall(self, request_id: str) -> Recalled:
        """What the gateways remember of a request, so far as Redis tells."""
        try:
            names = [f"{self._namespace}{kind}:{request_id}" for kind in ("completion", "accepted")]
            completion, accepted = await self._line.ask("MGET", *names)
        except RedisDownError:
            metrics.REDIS_MISSES.inc()
            return Recalled(None, self._fresh.get(request_id), answered=False)
        try:
            end = CompletionData.model_validate_json(completion) if completion else None
        except ValidationError:
            end = None
        return Recalled(end, accepted.decode() if accepted else self._fresh.get(request_id), answered=True)

    async def keep_completion(self, completion: CompletionData, ttl_s: int) -> None:
        """Remember an end that the bus does not know of."""
        value = completion.model_dump_json(exclude_none=True)
        await self._ask("SET", f"completion:{completion.request_id}", value, "EX", ttl_s)

    async def accepted(self, request_id: str, fingerprint: str) -> None:
        """Note a request that is on the bus; dedup needs a moment to read it."""
        self._fresh[request_id] = fingerprint
        if len(self._fresh) > _FRESH_KEPT:
            self._fresh.popitem(last=False)
        await self._ask("SET", f"accepted:{request_id}", fingerprint, "EX", _FRESH_S)

    async def claim(self, name: str, content: str, ttl_s: int) -> Claim | None:
        """Bind a name to what it first came with.

        Returns:
            What it is bound to; None when Redis does not answer.
        """
        key = self._namespace + name
        try:
            fresh = await self._line.ask("SET", key, content, "EX", ttl_s, "NX")
            if fresh:
                return Claim(content, True)
            bound = await self._line.ask("GET", key)
        except RedisDownError:
            metrics.REDIS_MISSES.inc()
            return None
        return Claim(bound.decode() if bound else content, False)

    async def unclaim(self, name: str) -> None:
        """The name was bound in error."""
        await self._ask("DEL", name)

    async def _ask(self, verb: str, name: str, *rest: object) -> Any:
        try:
            return await self._line.ask(verb, self._namespace + name, *rest)
        except RedisDownError:
            metrics.REDIS_MISSES.inc()
            return None
