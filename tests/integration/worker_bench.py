"""What the worker's integration tests share: jobs to publish, a reader of what came of them, a worker to run."""

import asyncio
import hashlib
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.clients import bus_producer, new_consumer, plain_topic, start_client
from infra.settings import KafkaSettings, RedisSettings
from schemas import topics
from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.base import utc_now
from schemas.codec import Message, decode, decode_chunk, encode, event_type
from schemas.codes import AudioFormat, Priority
from schemas.fingerprint import derived_seed, fingerprint
from schemas.jobs import SynthesisJob
from schemas.outcomes import StageProgress, SynthesisFailed
from schemas.requests import SpeechSpec
from synth_consumer.engines.settings import ToneSettings
from synth_consumer.worker.app import run_worker
from synth_consumer.worker.settings import SynthSettings, WorkerSettings
from tests.environment import environment
from tests.waiting import eventually

JOB_TOPIC = {Priority.INTERACTIVE: topics.JOBS_INTERACTIVE, Priority.BULK: topics.JOBS_BULK}
GROUP = "voxbus.synth"


def make_job(
    text: str, priority: Priority = Priority.INTERACTIVE, *, deadline_at: datetime | None = None, job_id: str = ""
) -> SynthesisJob:
    """A job as dedup makes it."""
    spec = SpeechSpec(text=text, voice="female1", language="zh", dialect="mandarin")
    name = fingerprint(spec, engine="tone", revision="1")
    return SynthesisJob(
        job_id=job_id or f"job-{name[:16]}",
        fingerprint=name,
        spec=spec.model_copy(update={"seed": derived_seed(name)}),
        formats=(AudioFormat.WAV,),
        priority=priority,
        request_id="r1",
        enqueued_at=utc_now(),
        deadline_at=deadline_at,
    )


def message_of(job: SynthesisJob) -> Message:
    """The job on the bus."""
    return encode(job, source="test")


async def publish(kafka: KafkaSettings, jobs: Iterable[SynthesisJob]) -> None:
    """Put jobs on their topics; they are there when this returns."""
    async with bus_producer(kafka, client_id="test") as producer:
        futures = [await producer.send(JOB_TOPIC[job.priority], message_of(job)) for job in jobs]
        await producer.all_acked(futures)


@dataclass
class Heard:
    """Everything a worker said, in the order of each partition."""

    chunks: dict[str, list[AudioChunk]] = field(default_factory=lambda: defaultdict(list))  # by take
    finished: list[TakeFinished] = field(default_factory=list)
    abandoned: list[TakeAbandoned] = field(default_factory=list)
    failed: list[SynthesisFailed] = field(default_factory=list)
    progress: list[StageProgress] = field(default_factory=list)
    dead: list[ConsumerRecord] = field(default_factory=list)

    def take(self, record: ConsumerRecord, topic: str) -> None:
        """Sort one record in."""
        if topic == topics.DEAD_LETTERS:
            self.dead.append(record)
            return
        kind = event_type(record.headers)
        if kind == AudioChunk.ce_type:
            chunk = decode_chunk(record.key, record.value, record.headers)
            self.chunks[chunk.take_id].append(chunk)
        elif kind == TakeFinished.ce_type:
            self.finished.append(decode(TakeFinished, record.value))
        elif kind == TakeAbandoned.ce_type:
            self.abandoned.append(decode(TakeAbandoned, record.value))
        elif kind == SynthesisFailed.ce_type:
            self.failed.append(decode(SynthesisFailed, record.value))
        elif kind == StageProgress.ce_type:
            self.progress.append(decode(StageProgress, record.value))

    def finished_jobs(self) -> set[str]:
        """Ids of jobs with at least one good take."""
        return {event.job.job_id for event in self.finished}

    def check_audio(self, event: TakeFinished) -> None:
        """The chunks of a good take are what its end says."""
        chunks = self.chunks[event.take_id]
        assert [chunk.index for chunk in chunks] == list(range(event.chunks))
        pcm = b"".join(chunk.pcm for chunk in chunks)
        assert len(pcm) == 2 * event.samples > 0
        assert hashlib.sha256(pcm).hexdigest() == event.sha256
        assert {chunk.job_id for chunk in chunks} == {event.job.job_id}
        assert {chunk.sample_rate for chunk in chunks} == {event.sample_rate}


@asynccontextmanager
async def listening(kafka: KafkaSettings) -> AsyncIterator[Heard]:
    """Hear the worker from the beginning of its topics."""
    heard = Heard()
    consumer = new_consumer(
        kafka, topics.AUDIO, topics.OUTCOMES, topics.DEAD_LETTERS, group=None, client_id="test", from_start=True
    )
    await start_client(consumer, kafka)

    async def hear() -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    heard.take(record, plain_topic(kafka, record))

    task = asyncio.create_task(hear())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await consumer.stop()


async def committed_records(kafka: KafkaSettings) -> int:
    """Records of the job topics that the group has committed past.

    Counted from committed offsets alone: the embedded broker answers wrongly where a partition ends.
    """
    consumer: AIOKafkaConsumer = new_consumer(kafka, group=GROUP, client_id="test")
    await start_client(consumer, kafka)
    try:
        partitions = [
            TopicPartition(kafka.namespace + topic, number)
            for topic in JOB_TOPIC.values()
            for number in range(kafka.partitions)
        ]
        return sum([await consumer.committed(partition) or 0 for partition in partitions])
    finally:
        await consumer.stop()


async def all_committed(kafka: KafkaSettings, count: int) -> None:
    """Wait until the group has committed past every one of `count` jobs."""

    async def nothing_left() -> bool:
        return await committed_records(kafka) == count

    await eventually(nothing_left, 20, f"{count} jobs committed", every_s=0.3)


def worker_settings(kafka: KafkaSettings, redis: RedisSettings, **synth: object) -> WorkerSettings:
    """A worker with the tone engine that obeys fault markers; `tone_…` go to the engine."""
    tone = {name.removeprefix("tone_"): synth.pop(name) for name in list(synth) if name.startswith("tone_")}
    options: dict[str, object] = {"slots": 1, "lanes": 2, "restart_delay_s": 0.1, "step_timeout_s": 20, **synth}
    return WorkerSettings(
        kafka=kafka,
        redis=redis,
        drain_timeout_s=10,
        synth=SynthSettings.model_validate(
            {"engine": "tone", "tone": ToneSettings(faults=True, **tone), **options}  # type: ignore[arg-type]
        ),
    )


@asynccontextmanager
async def working(settings: WorkerSettings) -> AsyncIterator[asyncio.Event]:
    """A worker in this process; yields what stops it, and stops it in the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_worker(settings, stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


@asynccontextmanager
async def worker_process(settings: WorkerSettings, **extra: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker as a process of its own; killed in the end."""
    synth = settings.synth
    variables = {
        "VOXBUS_SYNTH__ENGINE": "tone",
        "VOXBUS_SYNTH__SLOTS": str(synth.slots),
        "VOXBUS_SYNTH__LANES": str(synth.lanes),
        "VOXBUS_SYNTH__TONE__FAULTS": "true",
        "VOXBUS_SYNTH__TONE__REALTIME_FACTOR": str(synth.tone.realtime_factor),
        "VOXBUS_DRAIN_TIMEOUT_S": str(settings.drain_timeout_s),
        **extra,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "synth_consumer.worker",
        env=environment(variables, kafka=settings.kafka, redis=settings.redis),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def children_of(pid: int) -> list[int]:
    """Process ids of the engine processes of a worker."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError, IndexError):  # it may end while it is looked at
            parent = int(_stat(folder)[1])
            if parent == pid and "engine_child" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return _stat(Path("/proc") / str(pid))[0] != "Z"
    except OSError:
        return False


def _stat(folder: Path) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may hold spaces: state, parent, …"""
    return (folder / "stat").read_text().rpartition(")")[2].split()
