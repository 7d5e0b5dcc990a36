"""Takes go from the bus into the bucket: real broker, real object storage, real Redis."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr
from redis.asyncio import Redis

from infra.kafka.clients import new_consumer, start_client
from infra.settings import KafkaSettings, RedisSettings, S3Settings
from schemas import topics
from schemas.audio import TakeAbandoned
from schemas.base import utc_now
from schemas.codec import Message, encode
from schemas.codes import AudioFormat, ErrorCode, State
from schemas.dead_letters import read_dead_letter
from schemas.jobs import TranscodeRequested
from schemas.outcomes import RenditionStored, StageProgress, StoredObject, SynthesisFailed
from schemas.renditions import CachedRendition, rendition_cache_key
from tests.uploader_world import (
    TRACEPARENT,
    World,
    heard,
    loudness,
    make_job,
    make_take,
    serving,
    speech,
    uploader_world,
)
from tests.waiting import eventually
from uploader.settings import CdnSettings, SpoolSettings


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


async def test_a_take_told_again_changes_nothing(world: World) -> None:
    """Once in the same process, once after a restart that forgot everything."""
    take = make_take(formats=[AudioFormat.OPUS])
    async with world.running():
        await world.publish(take)
        first = await world.told.stored(take)
        await world.publish(take)
    before = {key: await world.bucket.head(key) for key in await world.bucket.keys()}
    async with world.running():
        await world.publish(take)
        ends = await eventually(lambda: len(found := world.told.ends(take.job.job_id)) > 1 and found, 20)
        await world.all_finished()

    for end in ends:
        assert isinstance(end, RenditionStored)
        assert [same(each) for each in (end.master, *end.renditions)] == [
            same(each) for each in (first.master, *first.renditions)
        ]
        assert end.take_id == take.take_id
    after = {key: await world.bucket.head(key) for key in await world.bucket.keys()}
    assert {key: head["LastModified"] for key, head in after.items()} == {
        key: head["LastModified"] for key, head in before.items()
    }


async def test_the_first_complete_take_of_a_fingerprint_stands(world: World) -> None:
    job = make_job("A text of a few words.", [AudioFormat.WAV])
    again = job.model_copy(update={"job_id": "later", "formats": (AudioFormat.WAV, AudioFormat.MP3)})
    first, second = make_take(speech(2.0, seed=1), job=job), make_take(speech(2.2, seed=2), job=again)
    async with world.running():
        await world.publish(first)
        await world.told.stored(first)
        await world.publish(second)
        stored = await world.told.stored(second)

    assert stored.take_id == first.take_id
    assert stored.duration_s == 2.0
    assert len(await world.bucket.keys()) == 3
    mp3, _ = heard(await world.bucket.read(stored.renditions[1].key))
    assert len(mp3) / 24_000 == pytest.approx(2.0, abs=0.05)


async def test_what_is_bad_is_told_and_never_stored(world: World) -> None:
    silent = make_take(np.zeros(60_000, "<i2"))
    empty = make_take(np.zeros(0, "<i2"))
    endless = make_take(speech(40.0), text="Hi.")
    gap = make_take()
    forged = make_take()
    wrong = encode(forged.finished.model_copy(update={"sha256": "0" * 64}), source="voxbus/test")
    async with world.running():
        await world.publish(silent, empty, endless)
        await world.send([message for n, message in enumerate(gap.messages()) if n != 1])
        await world.send([*forged.messages()[:-1], wrong])
        told = {take: await world.told.end(take.job.job_id) for take in (silent, empty, endless, gap, forged)}
        await world.all_finished()

    failures = {take: end for take, end in told.items() if isinstance(end, SynthesisFailed)}
    assert {take: (end.code, end.message) for take, end in failures.items()} == {
        silent: (ErrorCode.BAD_AUDIO, "the audio is silent"),
        empty: (ErrorCode.BAD_AUDIO, "the audio is empty"),
        endless: (ErrorCode.BAD_AUDIO, "the audio is 40.0 s long: too long for the text (at most 13.6 s)"),
        gap: (ErrorCode.INTERNAL, "the audio did not arrive whole: 1 of 3 chunks did not arrive"),
        forged: (ErrorCode.INTERNAL, "the audio did not arrive whole: its checksum is another"),
    }
    assert await world.bucket.keys() == []


async def test_further_formats_come_from_the_master(world: World) -> None:
    take = make_take(speech(2.0))
    async with world.running():
        await world.publish(take)
        stored = await world.told.stored(take)
        request = TranscodeRequested(
            job_id="more",
            fingerprint=take.job.fingerprint,
            master=stored.master,
            formats=(AudioFormat.OPUS, AudioFormat.FLAC),
            duration_s=stored.duration_s,
            sample_rate=stored.sample_rate,
            engine=stored.engine,
            enqueued_at=utc_now(),
        )
        await world.send([encode(request, source="voxbus/test")], topics.TRANSCODES)
        more = await world.told.end("more")
        assert isinstance(more, RenditionStored)
        opus, rate = heard(await world.bucket.read(more.renditions[0].key))

        await world.bucket.client.delete_object(Bucket=world.bucket.name, Key=stored.master.key)
        lost = request.model_copy(update={"job_id": "lost", "formats": (AudioFormat.MP3,)})
        await world.send([encode(lost, source="voxbus/test")], topics.TRANSCODES)
        failed = await world.told.end("lost")

    assert more.take_id == ""
    assert same(more.master) == same(more.renditions[1]) == same(stored.master)
    assert len(opus) / rate == pytest.approx(2.0, abs=0.05)
    assert isinstance(failed, SynthesisFailed)
    assert (failed.code, failed.formats) == (ErrorCode.INTERNAL, ())
    assert "master" in failed.message


async def test_unreadable_messages_are_dead_lettered_and_the_next_take_is_served(world: World) -> None:
    take = make_take()
    chunk = take.messages()[0]
    headless = Message(chunk.key, chunk.value, tuple(h for h in chunk.headers if h[0] != "ce_takeid"))
    async with world.running():
        await world.send([Message(b"k", b"{not json", ()), headless, Message(None, b"\0" * 999, chunk.headers)])
        await world.publish(take)
        await world.told.stored(take)
        await world.all_finished()

    consumer = new_consumer(world.settings.kafka, topics.DEAD_LETTERS, group=None, client_id="test")
    await start_client(consumer, world.settings.kafka)
    try:
        records = [await consumer.getone() for _ in range(3)]
    finally:
        await consumer.stop()
    letters = {read_dead_letter(record.headers).message for record in records}
    assert letters == {
        "no event of this topic",
        "header ce_takeid is missing",
        "the PCM ends within a sample",
    }


async def test_takes_that_never_end_do_not_hold_the_offsets(world: World) -> None:
    stale, abandoned, good = make_take(), make_take(), make_take()
    word = TakeAbandoned(
        take_id=abandoned.take_id,
        job_id=abandoned.job.job_id,
        fingerprint=abandoned.job.fingerprint,
        code=ErrorCode.ENGINE_CRASHED,
    )
    # Longer than a busy machine leaves the good take alone, whose chunks come one after another.
    async with world.running(spool=SpoolSettings(stale_after_s=3.0)):
        await world.send([*stale.messages()[:-1], *abandoned.messages()[:-1], encode(word, source="voxbus/test")])
        await world.publish(good)
        await world.told.stored(good)
        await world.all_finished()
        assert world.told.of(stale.job.job_id) == []

        # Its worker was only slow: the end of a take that was given up is told, not waited for.
        await world.send([encode(stale.finished, source="voxbus/test")])
        end = await world.told.end(stale.job.job_id)
    assert isinstance(end, SynthesisFailed)
    assert "given up" in end.message


async def test_a_cdn_is_refreshed_before_the_end_is_told(world: World) -> None:
    asked: list[tuple[str | None, list[str]]] = []

    async def refresh(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.get("Authorization"), (await request.json())["urls"]))
        return web.Response(status=500 if len(asked) == 1 or "broken" in request.path else 204)

    take, unlucky = make_take(), make_take()
    async with serving(refresh) as url:
        cdn = CdnSettings(refresh_url=f"{url}/refresh", token=SecretStr("s3cret"), attempts=2)
        async with world.running(cdn=cdn):
            await world.publish(take)
            stored = await world.told.stored(take)
        broken = replace_cdn(cdn, f"{url}/broken")
        async with world.running(cdn=broken):
            await world.publish(unlucky)
            await world.told.stored(unlucky)  # a deaf CDN fails no request

    assert asked[:2] == [("Bearer s3cret", [stored.renditions[0].url])] * 2
    assert len(asked) == 4
    states = [each.state for each in world.told.of(take.job.job_id) if isinstance(each, StageProgress)]
    assert states == [State.TRANSCODING, State.UPLOADING, State.REFRESHING]


def replace_cdn(cdn: CdnSettings, url: str) -> CdnSettings:
    return cdn.model_copy(update={"refresh_url": url})


async def test_without_redis_everything_else_goes_on(world: World) -> None:
    absent = world.settings.redis.model_copy(update={"url": SecretStr("redis://127.0.0.1:1/0")})
    lonely = replace(world, settings=world.settings.model_copy(update={"redis": absent}))
    take = make_take()
    async with lonely.running():
        await world.publish(take)
        await world.told.stored(take)


async def test_public_addresses_are_told_where_there_is_a_cdn(world: World) -> None:
    s3 = world.settings.s3.model_copy(update={"public_base_url": "https://cdn.example/audio/", "prefix": "tts/"})
    behind_cdn = replace(world, settings=world.settings.model_copy(update={"s3": s3}))
    take = make_take()
    async with behind_cdn.running():
        await world.publish(take)
        stored = await world.told.stored(take)
    key = stored.renditions[0].key
    assert key.startswith(f"tts/audio/{take.job.fingerprint[:2]}/{take.job.fingerprint}/")
    assert stored.renditions[0].url == f"https://cdn.example/audio/{key}"
    assert key in await world.bucket.keys()


async def test_two_uploaders_share_and_hand_over(world: World) -> None:
    takes = [make_take(speech(1.5, seed=n)) for n in range(24)]
    async with world.running():
        await world.publish(*takes[:8])
        await world.told.stored(takes[0])
        async with world.running():
            await world.publish(*takes[8:16])
            await world.told.stored(takes[15])
        await world.publish(*takes[16:])
        for take in takes:
            await world.told.stored(take)
        await world.all_finished()

    assert len(await world.bucket.keys()) == 2 * len(takes)


def same(stored: StoredObject) -> tuple[str, int, str]:
    """What stays; a presigned address is another every second."""
    return stored.key, stored.bytes, stored.sha256


async def test_a_full_spool_gives_up_the_oldest_take_and_goes_on(world: World) -> None:
    """Nothing in hand would make room, so waiting would be for ever."""
    # All of one fingerprint, so of one partition: the first of them is the oldest to the uploader, too.
    fingerprint = make_job("").fingerprint
    jobs = [make_job(f"Take {n}.").model_copy(update={"fingerprint": fingerprint}) for n in range(3)]
    growing = [make_take(speech(3.0, seed=n), job=job) for n, job in enumerate(jobs)]
    good = make_take(speech(1.0))
    narrow = SpoolSettings(take_memory_bytes=0, take_bytes=200_000, disk_bytes=200_000)
    async with world.running(spool=narrow):
        for take in growing:
            await world.send(take.messages()[:-1])
        await world.publish(good)
        await world.told.stored(good)
        await world.send([encode(growing[0].finished, source="voxbus/test")])
        end = await world.told.end(growing[0].job.job_id)
    assert isinstance(end, SynthesisFailed)
    assert (end.code, "VOXBUS_UPLOADER__SPOOL__DISK_BYTES" in end.message) == (ErrorCode.INTERNAL, True)
