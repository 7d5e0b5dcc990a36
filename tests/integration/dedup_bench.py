"""Real dedup workers in processes of their own, and a test that plays publisher, worker and uploader."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession
from aiokafka import ConsumerRecord

from infra.kafka.clients import BusProducer, bus_producer, new_consumer
from infra.settings import KafkaSettings
from schemas import topics
from schemas.codec import Context, decode, encode
from schemas.codes import AudioFormat, ErrorCode
from schemas.completions import EngineInfo, RequestCompleted, RequestStatus
from schemas.dead_letters import DeadLetter, read_dead_letter
from schemas.jobs import SynthesisJob, TranscodeRequested
from schemas.outcomes import Outcome, RenditionStored, StoredObject, SynthesisFailed
from schemas.requests import SynthesisRequested
from tests.environment import environment
from tests.waiting import eventually

_READ = (
    topics.JOBS_INTERACTIVE,
    topics.JOBS_BULK,
    topics.TRANSCODES,
    topics.STATUS,
    topics.COMPLETED,
    topics.DEAD_LETTERS,
)


@dataclass
class Bus:
    """All that dedup published in this test so far, and a way to publish."""

    producer: BusProducer
    records: dict[str, list[ConsumerRecord]] = field(default_factory=lambda: {topic: [] for topic in _READ})

    async def request(self, **fields: Any) -> str:
        """Publish a request as our client does; its id."""
        request = SynthesisRequested.model_validate({"request_id": uuid.uuid4().hex, "text": "Hello there.", **fields})
        await self.producer.deliver(topics.REQUESTS, encode(request, source="test"))
        assert request.request_id
        return request.request_id

    async def requests(self, count: int, **fields: Any) -> list[str]:
        """Publish many alike in as few batches as possible; their ids."""
        made = [SynthesisRequested.model_validate({"request_id": uuid.uuid4().hex, **fields}) for _ in range(count)]
        await self.producer.deliver(topics.REQUESTS, *(encode(request, source="test") for request in made))
        return [str(request.request_id) for request in made]

    async def outcome(self, outcome: Outcome) -> None:
        await self.producer.deliver(topics.OUTCOMES, encode(outcome, source="test", context=Context()))

    @property
    def jobs(self) -> list[SynthesisJob]:
        both = self.records[topics.JOBS_INTERACTIVE] + self.records[topics.JOBS_BULK]
        return [decode(SynthesisJob, record.value) for record in both]

    @property
    def transcodes(self) -> list[TranscodeRequested]:
        return [decode(TranscodeRequested, record.value) for record in self.records[topics.TRANSCODES]]

    @property
    def completions(self) -> list[RequestCompleted]:
        return [decode(RequestCompleted, record.value) for record in self.records[topics.COMPLETED]]

    @property
    def statuses(self) -> list[RequestStatus]:
        return [decode(RequestStatus, record.value) for record in self.records[topics.STATUS]]

    @property
    def letters(self) -> list[DeadLetter]:
        return [read_dead_letter(record.headers) for record in self.records[topics.DEAD_LETTERS]]

    def ends_of(self, request_id: str) -> list[RequestCompleted]:
        return [done for done in self.completions if done.data.request_id == request_id]

    async def job(self, number: int = 1, timeout_s: float = 30.0) -> SynthesisJob:
        """The n-th job, once it is there."""
        jobs = await eventually(lambda: self.jobs if len(self.jobs) >= number else None, timeout_s, f"job {number}")
        return jobs[number - 1]

    async def end(self, request_id: str, timeout_s: float = 30.0) -> RequestCompleted:
        """The one end of a request, once it is there."""
        ends = await eventually(lambda: self.ends_of(request_id), timeout_s, f"end of {request_id}")
        return ends[0]

    async def speak(self, job: SynthesisJob, *formats: AudioFormat) -> None:
        """Do the worker's and the uploader's part of a job."""
        await self.outcome(stored(job, *formats))

    async def served(self, **fields: Any) -> RequestCompleted:
        """Publish a request, do its job if there is one, and wait for its end."""
        before = len(self.jobs)
        request_id = await self.request(**fields)
        await eventually(lambda: len(self.jobs) > before or self.ends_of(request_id), 30, "job or end")
        for job in self.jobs[before:]:
            await self.speak(job)
        return await self.end(request_id)


def stored(job: SynthesisJob, *formats: AudioFormat) -> RenditionStored:
    """What the uploader says of a good take."""
    return RenditionStored(
        fingerprint=job.fingerprint,
        job_id=job.job_id,
        take_id=uuid.uuid4().hex,
        master=_file(job.fingerprint, AudioFormat.FLAC),
        renditions=tuple(_file(job.fingerprint, wanted) for wanted in formats or job.formats),
        duration_s=1.5,
        sample_rate=24_000,
        engine=EngineInfo(name="tone", revision="1", seed=job.spec.seed or 0),
        queued_ms=1,
        synthesis_ms=2,
        upload_ms=3,
    )


def transcoded(order: TranscodeRequested) -> RenditionStored:
    """What the uploader says of a transcode."""
    return RenditionStored(
        fingerprint=order.fingerprint,
        job_id=order.job_id,
        take_id="",
        master=order.master,
        renditions=tuple(_file(order.fingerprint, wanted) for wanted in order.formats),
        duration_s=order.duration_s,
        sample_rate=order.sample_rate,
        engine=order.engine,
    )


def failed(job: SynthesisJob, code: ErrorCode = ErrorCode.ENGINE_CRASHED) -> SynthesisFailed:
    return SynthesisFailed(
        fingerprint=job.fingerprint, job_id=job.job_id, code=code, message="the engine fell over", attempts=3
    )


def _file(fingerprint: str, wanted: AudioFormat) -> StoredObject:
    key = f"{fingerprint}/{wanted}"
    return StoredObject(key=key, format=wanted, bytes=1000, sha256="0" * 64, url=f"https://cdn.test/{key}")


@contextlib.asynccontextmanager
async def bus(settings: KafkaSettings) -> AsyncIterator[Bus]:
    """Everything dedup publishes, read from the beginning."""
    consumer = new_consumer(settings, *_READ, group=None, client_id="test-reader")
    async with bus_producer(settings, client_id="test") as producer:
        await consumer.start()
        reading = Bus(producer)

        async def read() -> None:
            async for record in consumer:
                reading.records[record.topic.removeprefix(settings.namespace)].append(record)

        task = asyncio.create_task(read())
        try:
            yield reading
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await consumer.stop()


@dataclass
class Worker:
    """One `python -m synth_consumer.dedup`."""

    process: asyncio.subprocess.Process
    log: Path
    health_port: int
    web: str

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with ClientSession() as http, http.get(self.web + path) as response:
            return response.status, await response.json()

    async def ready(self) -> bool:
        with contextlib.suppress(ClientError):
            async with ClientSession() as http, http.get(f"http://127.0.0.1:{self.health_port}/readyz") as response:
                return response.status == 200
        return False

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 10)


@contextlib.asynccontextmanager
async def dedup_worker(settings: KafkaSettings, folder: Path, **variables: str) -> AsyncIterator[Worker]:
    """A worker that is ready; killed at the end of the block."""
    log = folder / f"dedup-{uuid.uuid4().hex[:6]}.log"
    extra = {"VOXBUS_DEDUP__WEB_PORT": "0", "VOXBUS_SYNTH__ENGINE": "tone", **variables}
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "synth_consumer.dedup", stderr=stream, env=environment(extra, kafka=settings)
        )
    try:
        line = await eventually(lambda: _listening(log, process), 60, "the worker's ports", every_s=0.1)
        worker = Worker(process, log, line["health_port"], line["web"])
        await eventually(worker.ready, 60, f"the worker of {log}", every_s=0.1)
        yield worker
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()


def _listening(log: Path, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    assert process.returncode is None, log.read_text()
    for line in log.read_text().splitlines():
        if '"listening"' in line and '"health_port"' in line:
            return dict(json.loads(line))
    return None
