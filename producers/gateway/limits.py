"""Token buckets in Redis, shared by all gateways: one for the installation, one for each API key.

A gateway takes tokens by the handful and spends them one by one, so that most requests cost no round trip. What it
takes has left the shared bucket, so all gateways together never pass more than the bucket holds.
"""

import asyncio
import time
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from throttled import rate_limiter
from throttled.asyncio import MemoryStore, RateLimiterType, RedisStore, Throttled
from throttled.exceptions import BaseThrottledError

from infra.settings import RedisSettings
from producers.gateway.problems import ProblemError
from producers.gateway.settings import GatewaySettings

_HANDFULS_PER_S = 20
_HANDFUL_KEPT_S = 1.0  # a token lies idle no longer than this, then it lapses
_EMPTY_FOR_S = 0.05  # how long an empty bucket is believed to be empty
_AWAY_FOR_S = 1.0  # how long a Redis that did not answer is not asked again
_OWNERS_KEPT = 1_000


class Handful:
    """Tokens of one bucket in the hands of this gateway."""

    def __init__(self, name: str, rate: int, burst: int) -> None:
        self.name = name
        self.size = max(1, min(rate, burst) // _HANDFULS_PER_S)
        self.quota = rate_limiter.per_sec(rate, burst=burst)
        self.lock = asyncio.Lock()
        self._tokens = 0
        self._lapse_at = 0.0
        self._empty_until = 0.0
        self._retry_after_s = 1.0

    def spend(self, now: float) -> bool:
        """Spend a token at hand.

        Raises:
            ProblemError: 429, the bucket was found empty a moment ago.
        """
        if self._tokens and now < self._lapse_at:
            self._tokens -= 1
            return True
        if now < self._empty_until:
            raise rate_limited(self._retry_after_s)
        return False

    def put_back(self) -> None:
        """The token was not needed after all."""
        self._tokens += 1

    def fill(self, tokens: int, now: float) -> None:
        """Tokens came from the shared bucket."""
        self._tokens, self._lapse_at = tokens, now + _HANDFUL_KEPT_S

    def found_empty(self, retry_after_s: float, now: float) -> None:
        """The shared bucket is empty."""
        self._tokens, self._empty_until, self._retry_after_s = 0, now + _EMPTY_FOR_S, retry_after_s


class Limits:
    """The soft limit of the door. Without Redis each gateway counts by itself until Redis is back."""

    def __init__(self, settings: GatewaySettings, redis: RedisSettings) -> None:
        self._settings = settings
        self._namespace = redis.namespace
        self._shared = RedisStore(
            server=redis.url.get_secret_value(),
            options={
                "SOCKET_TIMEOUT": redis.timeout_s,
                "SOCKET_CONNECT_TIMEOUT": redis.timeout_s,
                "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 0)},
            },
        )
        self._alone = MemoryStore()
        self._away_until = 0.0
        self._timeout_s = redis.timeout_s
        self._everybody = Handful("all", settings.rate_per_s, settings.rate_burst)
        self._owners: dict[str, Handful] = {}

    async def close(self) -> None:
        """Close the connections; the library leaves that to whoever has its client."""
        client = cast("Redis", self._shared._backend.get_client())
        await client.aclose()
        await client.connection_pool.disconnect()

    async def take(self, owner: str) -> None:
        """Take a token for a request of this owner.

        Raises:
            ProblemError: 429, with the time after which a token will be there.
        """
        each = self._owners.get(owner)
        if each is None:
            if len(self._owners) >= _OWNERS_KEPT:
                self._owners.clear()
            rate = self._settings.key_rate_per_s
            each = self._owners[owner] = Handful(f"key:{owner}", rate, rate)
        await self._take(each)
        try:
            await self._take(self._everybody)
        except ProblemError:
            each.put_back()
            raise

    async def _take(self, handful: Handful) -> None:
        if handful.spend(time.monotonic()):
            return
        async with handful.lock:
            while not handful.spend(time.monotonic()):
                await self._fill(handful)

    async def _fill(self, handful: Handful) -> None:
        tokens = handful.size
        retry_after_s = await self._ask(handful, tokens)
        if retry_after_s and tokens > 1:
            tokens = 1
            retry_after_s = await self._ask(handful, tokens)
        if retry_after_s:
            handful.found_empty(retry_after_s, time.monotonic())
        else:
            handful.fill(tokens, time.monotonic())

    async def _ask(self, handful: Handful, tokens: int) -> float:
        """Seconds until so many tokens are there; 0 when they were taken."""
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._limit(handful, tokens, self._shared)
            except (BaseThrottledError, RedisError, OSError, TimeoutError):
                self._away_until = time.monotonic() + _AWAY_FOR_S
        return await self._limit(handful, tokens, self._alone)

    async def _limit(self, handful: Handful, tokens: int, store: "RedisStore | MemoryStore") -> float:
        bucket = Throttled(using=RateLimiterType.TOKEN_BUCKET.value, quota=handful.quota, store=store)
        result = await bucket.limit(f"{self._namespace}rate:{handful.name}", cost=tokens)
        return max(1.0, result.state.retry_after) if result.limited else 0.0


def rate_limited(retry_after_s: float) -> ProblemError:
    """The refusal of one who asks too often."""
    return ProblemError(
        429, "rate_limited", "too many requests; try again after the time in Retry-After", retry_after_s=retry_after_s
    )
