"""An uploader and its surroundings for tests: takes on the bus, what came of them, what stands in the bucket."""

import asyncio
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import numpy as np
import soundfile
from aiobotocore.session import get_session
from aiohttp import web
from aiokafka import TopicPartition
from yarl import URL

from infra.kafka.clients import BusProducer, bus_producer, new_consumer, start_client
from infra.settings import HealthSettings, KafkaSettings, RedisSettings, S3Settings
from schemas import topics
from schemas.audio import AudioChunk, TakeFinished
from schemas.base import utc_now
from schemas.codec import Context, Message, decode, encode, encode_chunk, event_type
from schemas.codes import AudioFormat, Priority
from schemas.completions import EngineInfo
from schemas.jobs import SynthesisJob
from schemas.outcomes import Outcome, RenditionStored, StageProgress, SynthesisFailed
from schemas.requests import SpeechSpec
from tests.waiting import eventually
from uploader.app import GROUP, run
from uploader.settings import UploaderFragment, UploaderSettings
from uploader.spool import Samples

RATE = 24_000
ENGINE = EngineInfo(name="tone", revision="1", seed=7)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def speech(seconds: float, *, rate: int = RATE, seed: int = 0) -> Samples:
    """Something that passes for speech: a wandering tone with pauses and breath, other for every seed."""
    generator = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 60 * generator.random() + 20 * np.sin(2 * np.pi * 0.7 * t)
    loudness = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)
    wave = loudness * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + 0.02 * generator.standard_normal(len(t))
    return (wave * 9_000).astype("<i2")


@dataclass(frozen=True)
class MadeTake:
    """A take as the worker would publish it."""

    take_id: str
    job: SynthesisJob
    pcm: bytes
    chunk_bytes: int
    rate: int
    truncated: bool = False

    @property
    def chunks(self) -> list[AudioChunk]:
        spans = range(0, len(self.pcm), self.chunk_bytes)
        return [
            AudioChunk(
                self.job.fingerprint,
                self.job.job_id,
                self.take_id,
                index,
                self.rate,
                self.pcm[start : start + self.chunk_bytes],
            )
            for index, start in enumerate(spans)
        ]

    @property
    def finished(self) -> TakeFinished:
        return TakeFinished(
            take_id=self.take_id,
            job=self.job,
            chunks=len(self.chunks),
            samples=len(self.pcm) // 2,
            sample_rate=self.rate,
            sha256=hashlib.sha256(self.pcm).hexdigest(),
            engine=ENGINE,
            truncated=self.truncated,
            queued_ms=11,
            synthesis_ms=22,
        )

    def messages(self) -> list[Message]:
        context = Context(TRACEPARENT)
        return [
            *(encode_chunk(chunk, source="voxbus/test", context=context) for chunk in self.chunks),
            encode(self.finished, source="voxbus/test", context=context),
        ]


def make_job(
    text: str, formats: Sequence[AudioFormat] = (AudioFormat.WAV,), *, deadline_at: datetime | None = None
) -> SynthesisJob:
    return SynthesisJob(
        job_id=uuid.uuid4().hex,
        fingerprint=hashlib.sha256(uuid.uuid4().bytes).hexdigest(),
        spec=SpeechSpec(text=text, voice="female1", language="en", dialect="english", seed=7),
        formats=tuple(formats),
        priority=Priority.INTERACTIVE,
        request_id=uuid.uuid4().hex,
        enqueued_at=utc_now(),
        deadline_at=deadline_at,
    )


def make_take(
    samples: Samples | None = None,
    *,
    job: SynthesisJob | None = None,
    formats: Sequence[AudioFormat] = (AudioFormat.WAV,),
    text: str = "A text of a few words.",
    rate: int = RATE,
    chunk_s: float = 1.0,
    truncated: bool = False,
) -> MadeTake:
    """A take of its own job, or of the one given; its chunks are a second long."""
    pcm = (speech(2.5) if samples is None else samples).tobytes()
    job = job or make_job(text, formats)
    return MadeTake(uuid.uuid4().hex, job, pcm, int(chunk_s * rate) * 2, rate, truncated)


@dataclass
class Told:
    """What came on `tts.outcomes`."""

    outcomes: list[Outcome] = field(default_factory=list)
    traceparents: set[str] = field(default_factory=set)

    def of(self, job_id: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.job_id == job_id]

    def ends(self, job_id: str) -> list[RenditionStored | SynthesisFailed]:
        return [outcome for outcome in self.of(job_id) if not isinstance(outcome, StageProgress)]

    async def end(self, job_id: str, timeout_s: float = 30.0) -> RenditionStored | SynthesisFailed:
        ends = await eventually(lambda: self.ends(job_id), timeout_s, f"the end of job {job_id}")
        return ends[0]

    async def stored(self, take: MadeTake, timeout_s: float = 30.0) -> RenditionStored:
        end = await self.end(take.job.job_id, timeout_s)
        assert isinstance(end, RenditionStored), end
        return end


@dataclass
class Bucket:
    """The test's bucket, looked at directly."""

    client: Any
    name: str

    async def keys(self) -> list[str]:
        answer = await self.client.list_objects_v2(Bucket=self.name)
        return sorted(entry["Key"] for entry in answer.get("Contents", ()))

    async def read(self, key: str) -> bytes:
        answer = await self.client.get_object(Bucket=self.name, Key=key)
        content: bytes = await answer["Body"].read()
        return content

    async def head(self, key: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.head_object(Bucket=self.name, Key=key)
        return answer

    async def uploads(self) -> list[str]:
        answer = await self.client.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in answer.get("Uploads", ())]


@dataclass
class World:
    """Everything a test needs."""

    settings: UploaderSettings
    producer: BusProducer
    told: Told
    bucket: Bucket
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    """One past the last message published, by partition (the embedded broker's own figure is not to be had)."""

    async def publish(self, *takes: MadeTake) -> None:
        for take in takes:
            await self.send(take.messages())

    async def send(self, messages: Iterable[Message], topic: str = topics.AUDIO) -> None:
        for future in [await self.producer.send(topic, message) for message in messages]:
            sent = await future
            partition = TopicPartition(sent.topic, sent.partition)
            self.ends[partition] = max(self.ends.get(partition, 0), sent.offset + 1)

    async def all_finished(self) -> None:
        """Wait until the uploaders' offsets are behind everything published."""
        consumer = new_consumer(self.settings.kafka, group=GROUP, client_id="test")
        await start_client(consumer, self.settings.kafka)

        async def committed() -> bool:
            behind = {p: (end, await consumer.committed(p)) for p, end in self.ends.items()}
            assert all(end == done for end, done in behind.values()), behind
            return True

        try:
            await eventually(committed, 20, "offsets behind everything published", every_s=0.1)
        finally:
            await consumer.stop()

    def running(self, **fragment: Any) -> "Running":
        """The uploader in this process, with some of its settings changed."""
        changed = self.settings.uploader.model_copy(update=fragment)
        return Running(self.settings.model_copy(update={"uploader": changed}))


class Running:
    """`async with world.running():` an uploader in this process; leaving it drains."""

    def __init__(self, settings: UploaderSettings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Running":
        self._task = asyncio.create_task(run(self._settings, self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._stop.set()
        await asyncio.wait_for(self._task, 30)


@asynccontextmanager
async def uploader_world(
    kafka: KafkaSettings, redis: RedisSettings, s3: S3Settings, fragment: UploaderFragment | None = None
) -> AsyncIterator[World]:
    """A bus to publish on, and eyes on outcomes and bucket; the uploader itself is the test's to start."""
    settings = UploaderSettings.model_construct(
        kafka=kafka,
        redis=redis,
        s3=s3,
        health=HealthSettings(),
        uploader=fragment or UploaderFragment(),
        drain_timeout_s=5.0,
    )
    secret = s3.secret_access_key
    async with (
        bus_producer(kafka, client_id="test") as producer,
        _outcomes(kafka) as told,
        get_session().create_client(
            "s3",
            endpoint_url=s3.endpoint_url,
            region_name=s3.region,
            aws_access_key_id=s3.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
        ) as client,
    ):
        yield World(settings, producer, told, Bucket(client, s3.bucket))


@asynccontextmanager
async def _outcomes(kafka: KafkaSettings) -> AsyncIterator[Told]:
    told = Told()
    consumer = new_consumer(kafka, topics.OUTCOMES, group=None, client_id="test")
    await start_client(consumer, kafka)

    async def read() -> None:
        models = {model.ce_type: model for model in (RenditionStored, StageProgress, SynthesisFailed)}
        async for record in consumer:
            told.outcomes.append(decode(models[event_type(record.headers) or ""], record.value))
            told.traceparents |= {value.decode() for name, value in record.headers if name == "traceparent"}

    reading = asyncio.create_task(read())
    try:
        yield told
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await consumer.stop()


def heard(content: bytes) -> tuple[Samples, int]:
    """What a player would play, and at which rate."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    return samples, rate


def loudness(samples: Samples) -> float:
    """RMS."""
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def as_json(value: bytes | str | None) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(value or "{}")
    return parsed


Fault = Callable[[web.Request], Awaitable[int | None]]
"""Looks at a request on its way to storage: a status to answer with instead, or None to let it pass."""


async def no_fault(_request: web.Request) -> int | None:
    return None


class StorageProxy:
    """Stands before object storage: counts what passes, and fails or delays what it is told to."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.fault: Fault = no_fault
        self.seen: list[tuple[str, str, int]] = []  # method, path with query, status
        self.url = ""

    def count(self, method: str, part: str) -> int:
        """Requests of a method whose path with query contains `part`."""
        return sum(1 for seen, path, _ in self.seen if seen == method and part in path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        status = await self.fault(request)
        if status is not None:
            self.seen.append((request.method, request.raw_path, status))
            return web.Response(status=status)
        headers = {name: value for name, value in request.headers.items() if name != "Transfer-Encoding"}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                URL(self._target + request.raw_path, encoded=True),
                data=io.BytesIO(body) if body else None,
                headers=headers,
            ) as answer,
        ):
            content = await answer.read()
            self.seen.append((request.method, request.raw_path, answer.status))
            kept = {n: v for n, v in answer.headers.items() if n not in {"Transfer-Encoding", "Connection"}}
            if request.method == "HEAD":
                return web.Response(status=answer.status, headers=kept)
            kept.pop("Content-Length", None)
            return web.Response(status=answer.status, body=content, headers=kept)


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A small HTTP server on loopback; yields its address."""
    app = web.Application(client_max_size=1 << 28)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def storage_proxy(s3: S3Settings) -> AsyncIterator[tuple[StorageProxy, S3Settings]]:
    """A proxy before the store, and settings that go through it."""
    proxy = StorageProxy(s3.endpoint_url or "")
    async with serving(proxy.handle) as url:
        yield proxy, s3.model_copy(update={"endpoint_url": url})
