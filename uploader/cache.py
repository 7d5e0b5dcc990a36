"""Redis entries of stored renditions, so that a repeated request is answered at the door."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from infra.logging import get_logger
from infra.settings import RedisSettings
from schemas.base import utc_now
from schemas.outcomes import RenditionStored, StoredObject
from schemas.renditions import CachedRendition, rendition_cache_key
from uploader import metrics

_log = get_logger(__name__)
_URL_RESERVE = 0.5  # an entry is forgotten when its URL still works for this share of its life


class RenditionCache:
    """Writes only. An absent Redis costs a bounded moment and a line in the log, nothing else."""

    def __init__(self, redis: Redis, settings: RedisSettings, *, url_lifetime_s: int | None) -> None:
        self._redis = redis
        self._settings = settings
        wanted = settings.cache_ttl_s
        self._ttl_s = wanted if url_lifetime_s is None else min(wanted, max(1, int(url_lifetime_s * _URL_RESERVE)))

    async def write(self, outcome: RenditionStored) -> None:
        """Note every rendition of an outcome; they are durable by now."""
        entries = {
            self._settings.namespace + rendition_cache_key(outcome.fingerprint, rendition.format): _entry(
                outcome, rendition
            )
            for rendition in (outcome.master, *outcome.renditions)
        }
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key, entry in entries.items():
                        pipe.set(key, entry, ex=self._ttl_s)
                    await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            metrics.CACHE_WRITES.labels("skipped").inc(len(entries))
            _log.warning("cache entry not written", error=type(error).__name__, fingerprint=outcome.fingerprint)
            return
        metrics.CACHE_WRITES.labels("written").inc(len(entries))


def _entry(outcome: RenditionStored, rendition: StoredObject) -> str:
    return CachedRendition(
        fingerprint=outcome.fingerprint,
        key=rendition.key,
        url=rendition.url,
        format=rendition.format,
        bytes=rendition.bytes,
        sha256=rendition.sha256,
        duration_s=outcome.duration_s,
        sample_rate=rendition.sample_rate or outcome.sample_rate,
        truncated=outcome.truncated,
        engine=outcome.engine,
        stored_at=utc_now(),
    ).model_dump_json()


@asynccontextmanager
async def rendition_cache(settings: RedisSettings, *, url_lifetime_s: int | None) -> AsyncIterator[RenditionCache]:
    """A writer with its own connections; nothing is asked of Redis before the first write."""
    redis = Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield RenditionCache(redis, settings, url_lifetime_s=url_lifetime_s)
    finally:
        await redis.aclose()
