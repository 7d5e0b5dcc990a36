"""Token buckets in Redis, shared by all gateways: one for the installation, one for each API key."""

from redis.exceptions import RedisError
from throttled import rate_limiter
from throttled.asyncio import MemoryStore, RateLimiterType, RedisStore, Throttled

from infra.settings import RedisSettings
from producers.gateway.problems import ProblemError
from producers.gateway.settings import GatewaySettings


class Limits:
    """The soft limit of the door. Without Redis each gateway counts by itself until Redis is back."""

    def __init__(self, settings: GatewaySettings, redis: RedisSettings) -> None:
        store = RedisStore(
            server=redis.url.get_secret_value(),
            options={"SOCKET_TIMEOUT": redis.timeout_s, "SOCKET_CONNECT_TIMEOUT": redis.timeout_s},
        )
        self._namespace = redis.namespace
        self._shared = _buckets(settings, store)
        self._alone = _buckets(settings, MemoryStore())

    async def take(self, owner: str) -> None:
        """Take a token for a request of this owner.

        Raises:
            ProblemError: 429, with the time after which a token will be there.
        """
        try:
            await self._take(self._shared, owner)
        except (RedisError, OSError):
            await self._take(self._alone, owner)

    async def _take(self, buckets: "tuple[Throttled, Throttled]", owner: str) -> None:
        everybody, each = buckets
        for throttled, name in ((each, f"key:{owner}"), (everybody, "all")):
            result = await throttled.limit(f"{self._namespace}rate:{name}")
            if result.limited:
                raise ProblemError(
                    429,
                    "rate_limited",
                    "too many requests; try again after the time in Retry-After",
                    retry_after_s=result.state.retry_after,
                )


def _buckets(settings: GatewaySettings, store: object) -> "tuple[Throttled, Throttled]":
    def bucket(rate: int, burst: int) -> Throttled:
        return Throttled(
            using=RateLimiterType.TOKEN_BUCKET.value,
            quota=rate_limiter.per_sec(rate, burst=burst),
            store=store,
        )

    return bucket(settings.rate_per_s, settings.rate_burst), bucket(settings.key_rate_per_s, settings.key_rate_per_s)
