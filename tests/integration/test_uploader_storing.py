"""Takes go from the bus into the bucket: real broker, real object storage, real Redis."""

import hashlib
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from infra.settings import KafkaSettings, RedisSettings, S3Settings
from schemas.codes import AudioFormat, State
from schemas.outcomes import StageProgress
from schemas.renditions import CachedRendition, rendition_cache_key
from tests.uploader_world import TRACEPARENT, World, heard, loudness, make_take, speech, uploader_world


@pytest.fixture
async def world(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, s3_settings: S3Settings
) -> AsyncIterator[World]:
    async with uploader_world(topics_ready, redis_settings, s3_settings) as made:
        yield made


async def test_every_format_is_stored_told_and_cached(world: World, redis_settings: RedisSettings) -> None:
    samples = speech(3.0)
    take = make_take(samples, formats=list(AudioFormat))
    async with world.running():
        await world.publish(take)
        stored = await world.told.stored(take)

    assert {each.format for each in stored.renditions} == set(AudioFormat)
    assert stored.take_id == take.take_id
    assert (stored.queued_ms, stored.synthesis_ms, stored.duration_s) == (11, 22, 3.0)
    for each in stored.renditions:
        content = await world.bucket.read(each.key)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (each.bytes, each.sha256)
        played, rate = heard(content)
        assert len(played) / rate == pytest.approx(3.0, abs=0.05)
        assert loudness(played) == pytest.approx(loudness(samples), rel=0.1)
    assert await world.bucket.keys() == sorted({each.key for each in stored.renditions})

    head = await world.bucket.head(stored.master.key)
    assert head["ContentType"] == "audio/flac"
    assert "immutable" in head["CacheControl"]
    assert head["Metadata"]["fingerprint"] == take.job.fingerprint
    assert head["Metadata"]["seed"] == "7"

    progress = [each for each in world.told.of(take.job.job_id) if isinstance(each, StageProgress)]
    assert [each.state for each in progress] == [State.TRANSCODING, State.UPLOADING]
    assert world.told.traceparents == {TRACEPARENT}

    redis = Redis.from_url(redis_settings.url.get_secret_value())
    try:
        key = redis_settings.namespace + rendition_cache_key(take.job.fingerprint, AudioFormat.OPUS)
        cached = CachedRendition.model_validate_json(await redis.get(key))
        assert 0 < await redis.ttl(key) <= redis_settings.cache_ttl_s
    finally:
        await redis.aclose()
    opus = next(each for each in stored.renditions if each.format is AudioFormat.OPUS)
    assert (cached.key, cached.sha256, cached.audio().bytes) == (opus.key, opus.sha256, opus.bytes)
