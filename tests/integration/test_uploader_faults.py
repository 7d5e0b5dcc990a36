"""Storage that fails, parts that get lost, processes that die: everything is stored once, nothing is lost."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from infra.settings import KafkaSettings, RedisSettings, S3Settings
from schemas.base import utc_now
from schemas.codes import AudioFormat, ErrorCode
from schemas.outcomes import RenditionStored, SynthesisFailed
from tests.environment import environment
from tests.uploader_world import (
    StorageProxy,
    World,
    heard,
    make_job,
    make_take,
    no_fault,
    speech,
    storage_proxy,
    uploader_world,
)
from tests.waiting import eventually

MINUTES = speech(180.0)
LONG_TEXT = "word " * 100


@pytest.fixture
async def world(
    topics_ready: KafkaSettings, redis_settings: RedisSettings, s3_settings: S3Settings
) -> AsyncIterator[World]:
    async with uploader_world(topics_ready, redis_settings, s3_settings) as made:
        yield made


@asynccontextmanager
async def behind_proxy(world: World) -> AsyncIterator[tuple[StorageProxy, World]]:
    """The same world, its uploaders reaching storage through a proxy."""
    async with storage_proxy(world.settings.s3) as (proxy, s3):
        yield proxy, replace(world, settings=world.settings.model_copy(update={"s3": s3}))


async def test_a_failed_part_is_sent_again_alone(world: World) -> None:
    take = make_take(MINUTES, formats=[AudioFormat.WAV], text=LONG_TEXT)
    failures = Counter[str]()

    async def fault(request: web.Request) -> int | None:
        if request.method == "PUT" and ".wav?" in request.raw_path and "partNumber=2" in request.raw_path:
            failures["part 2"] += 1
            return 500 if failures["part 2"] <= 7 else None
        return None

    async with behind_proxy(world) as (proxy, proxied):
        proxy.fault = fault
        async with proxied.running():
            await world.publish(take)
            stored = await world.told.stored(take, 60)

    wav = stored.renditions[0]
    assert wav.bytes > 8_000_000
    assert (await world.bucket.head(wav.key))["ContentLength"] == wav.bytes
    samples, _ = heard(await world.bucket.read(wav.key))
    assert samples.tobytes() == take.pcm
    sent = Counter(
        path.split("partNumber=")[1][0] for _, path, _ in proxy.seen if ".wav" in path and "partNumber" in path
    )
    assert sent == {"1": 1, "2": 8}
    assert await world.bucket.uploads() == []


async def test_an_upload_that_cannot_be_finished_is_aborted_and_told(world: World) -> None:
    job = make_job(LONG_TEXT, deadline_at=utc_now() + timedelta(seconds=8))
    take = make_take(MINUTES, job=job)

    async def fault(request: web.Request) -> int | None:
        return 503 if "partNumber=2" in request.raw_path else None

    async with behind_proxy(world) as (proxy, proxied):
        proxy.fault = fault
        async with proxied.running():
            await world.publish(take)
            end = await world.told.end(job.job_id, 60)
    assert isinstance(end, SynthesisFailed)
    assert end.code is ErrorCode.STORAGE_UNAVAILABLE
    assert await world.bucket.uploads() == []
    assert await world.bucket.keys() == []


async def test_abandoned_uploads_are_aborted_at_start(world: World) -> None:
    client, name = world.bucket.client, world.bucket.name
    await client.create_multipart_upload(Bucket=name, Key="audio/ab/left/behind.wav")
    await client.create_multipart_upload(Bucket=name, Key="somebody/elses.bin")
    async with world.running(abandoned_upload_age_s=0):
        await eventually(lambda: _uploads_are(world, ["somebody/elses.bin"]), 20)


async def _uploads_are(world: World, keys: list[str]) -> bool:
    return await world.bucket.uploads() == keys


async def test_storage_goes_and_comes_back(world: World) -> None:
    before, during, after = (make_take(speech(1.5, seed=n)) for n in range(3))

    async def down(_request: web.Request) -> int | None:
        return 503

    async with behind_proxy(world) as (proxy, proxied), proxied.running():
        await world.publish(before)
        await world.told.stored(before)
        proxy.fault = down
        await world.publish(during)
        await eventually(lambda: sum(1 for *_, status in proxy.seen if status == 503) > 8, 30)
        await world.publish(after)
        assert world.told.ends(during.job.job_id) == []
        proxy.fault = no_fault
        await world.told.stored(during)
        await world.told.stored(after)
        await world.all_finished()


async def test_storage_that_stays_away_is_told_at_the_deadline(world: World) -> None:
    warm, late = make_take(), make_take(job=make_job("A text of words.", deadline_at=utc_now() + timedelta(seconds=12)))

    async def down(_request: web.Request) -> int | None:
        return 503

    async with behind_proxy(world) as (proxy, proxied), proxied.running():
        await world.publish(warm)
        await world.told.stored(warm)
        proxy.fault = down
        await world.publish(late)
        end = await world.told.end(late.job.job_id, 40)
        await world.all_finished()
    assert isinstance(end, SynthesisFailed)
    assert end.code is ErrorCode.STORAGE_UNAVAILABLE
    assert "http://" not in end.message


async def test_a_slow_upload_does_not_stop_the_others(world: World) -> None:
    slow, quick = make_take(speech(1.5, seed=1)), [make_take(speech(1.5, seed=n)) for n in range(2, 7)]
    release = asyncio.Event()

    async def fault(request: web.Request) -> int | None:
        if request.method == "PUT" and slow.job.fingerprint in request.path:
            await release.wait()
        return None

    async with behind_proxy(world) as (proxy, proxied):
        proxy.fault = fault
        async with proxied.running(concurrency=2):
            await world.publish(slow, *quick)
            for take in quick:
                await world.told.stored(take)
            assert world.told.ends(slow.job.job_id) == []
            release.set()
            await world.told.stored(slow)


async def test_a_killed_uploader_loses_nothing_and_stores_once(world: World, tmp_path: Path) -> None:
    """Killed with one take half read, one being uploaded, one stored."""
    stored, held, half = (make_take(speech(3.0, seed=n), formats=[AudioFormat.OPUS]) for n in range(3))
    arrived = asyncio.Event()

    async def hold(request: web.Request) -> int | None:
        if request.method == "PUT" and held.job.fingerprint in request.path and ".opus" in request.path:
            arrived.set()
            await asyncio.sleep(3_600)
        return None

    async with behind_proxy(world) as (proxy, proxied):
        proxy.fault = hold
        async with _process(proxied, tmp_path) as first:
            await world.publish(stored)
            await world.send(half.messages()[:-2])
            await world.publish(held)
            await world.told.stored(stored)
            await asyncio.wait_for(arrived.wait(), 20)
            first.send_signal(signal.SIGKILL)
            first.wait()
        proxy.fault = no_fault
        assert world.told.ends(held.job.job_id) == []
        async with _process(proxied, tmp_path) as second:
            await world.send(half.messages()[-2:])
            for take in (held, half):
                await world.told.stored(take)
            await world.all_finished()
            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait, 20) == 0

    for take in (stored, held, half):
        ends = world.told.ends(take.job.job_id)
        assert all(isinstance(end, RenditionStored) for end in ends)
        assert len({(end.renditions[0].key, end.renditions[0].sha256) for end in ends}) == 1  # type: ignore[union-attr]
        played, _ = heard(await world.bucket.read(ends[0].renditions[0].key))  # type: ignore[union-attr]
        assert len(played) == pytest.approx(72_000, abs=500)
    assert len(await world.bucket.keys()) == 6
    assert list((tmp_path / "spool").iterdir()) == []


@asynccontextmanager
async def _process(world: World, folder: Path) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """An uploader in a process of its own, every take on disk."""
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    settings = world.settings
    variables = environment(
        {"VOXBUS_UPLOADER__SPOOL__FOLDER": str(spool), "VOXBUS_UPLOADER__SPOOL__TAKE_MEMORY_BYTES": "0"},
        kafka=settings.kafka,
        redis=settings.redis,
        s3=settings.s3,
    )
    log = folder / f"uploader-{len(list(folder.iterdir()))}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "uploader"], env=variables, stderr=stderr)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"VOXBUS_S3__ENDPOINT_URL": "http://127.0.0.1:1"}, "object storage does not answer at http://127.0.0.1:1"),
        (
            {"VOXBUS_S3__BUCKET": "absent-bucket", "VOXBUS_S3__CREATE_BUCKET": "false"},
            "bucket 'absent-bucket' does not exist",
        ),
        ({"VOXBUS_UPLOADER__PART_BYTES": "7"}, "VOXBUS_UPLOADER__PART_BYTES: Input should be greater"),
    ],
)
async def test_what_is_wrong_at_start_is_said_in_one_line(world: World, variables: dict[str, str], words: str) -> None:
    settings = world.settings
    made = environment(kafka=settings.kafka, redis=settings.redis, s3=settings.s3)
    made |= {"VOXBUS_UPLOADER__START_TIMEOUT_S": "1"} | variables
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uploader", env=made, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    said = stderr.decode()
    assert words in said
    assert "Traceback" not in said
