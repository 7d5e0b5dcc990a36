"""One take on the bus: its chunks, its progress, its end."""

import asyncio
from dataclasses import dataclass

from infra.kafka.clients import BusProducer
from schemas import topics
from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.base import Event
from schemas.codec import Context, Message, encode, encode_chunk
from schemas.codes import ErrorCode, State
from schemas.jobs import SynthesisJob
from schemas.outcomes import StageProgress, SynthesisFailed
from synth_consumer.worker.frames import Audio
from synth_consumer.worker.progress import ProgressMeter

SOURCE = "voxbus/synth"


@dataclass(frozen=True, slots=True)
class Desk:
    """Where takes are published, and how many chunks may be unsent at once in one slot."""

    producer: BusProducer
    unsent: asyncio.Semaphore

    async def failed(self, job: SynthesisJob, context: Context, code: ErrorCode, message: str, attempts: int) -> None:
        """Say that a synthesis will not come, and wait until the bus has it."""
        event = SynthesisFailed(
            fingerprint=job.fingerprint, job_id=job.job_id, code=code, message=message, attempts=max(1, attempts)
        )
        await self.producer.deliver(topics.OUTCOMES, encode(event, source=SOURCE, context=context))


class TakeStream:
    """Publishes one take. Chunks go out in order as they come; the end goes out when the bus has them all."""

    def __init__(
        self,
        desk: Desk,
        job: SynthesisJob,
        context: Context,
        take_id: str,
        *,
        sample_rate: int,
        meter: ProgressMeter,
    ) -> None:
        self._desk = desk
        self._job = job
        self._context = context
        self._meter = meter
        self._sample_rate = sample_rate
        self._waiting: set[asyncio.Future[object]] = set()
        self._error: BaseException | None = None
        self._ended = False  # an end was sent, or is not needed: nothing may follow it
        self.take_id = take_id
        self.chunks = 0

    async def begin(self) -> None:
        """Say that synthesis began, unless a former take of the job did."""
        await self._progress(self._meter.begin(_now()))

    async def chunk(self, audio: Audio) -> None:
        """Publish a chunk; waits while too many are unsent.

        Raises:
            KafkaError: the bus refused this one or one before it.
        """
        await self._desk.unsent.acquire()
        try:
            if self._error is not None:
                raise self._error
            if self._ended:  # given up while this chunk waited
                self._desk.unsent.release()
                return
            future = await self._desk.producer.send(topics.AUDIO, self._message(audio))
        except BaseException:
            self._desk.unsent.release()
            raise
        future.add_done_callback(lambda _: self._desk.unsent.release())
        self._watch(future)
        self.chunks += 1
        await self._progress(self._meter.moved(audio.progress, _now()))

    async def finish(self, event: TakeFinished) -> None:
        """Publish the end once the bus has every chunk, and wait until it has the end too.

        Raises:
            KafkaError: the bus refused something; the take is worth nothing.
        """
        while self._waiting:
            await asyncio.wait(self._waiting)
        if self._error is not None:
            raise self._error
        self._ended = True
        await self._desk.producer.deliver(topics.AUDIO, self._encoded(event))

    async def abandon(self, code: ErrorCode) -> None:
        """Say that no more comes, if anything was said at all. Not waited for: whoever reads can do without."""
        if self._ended:
            return
        self._ended = True
        if self.chunks == 0:
            return
        event = TakeAbandoned(
            take_id=self.take_id, job_id=self._job.job_id, fingerprint=self._job.fingerprint, code=code
        )
        self._watch(await self._desk.producer.send(topics.AUDIO, self._encoded(event)))

    async def _progress(self, percent: int | None) -> None:
        if percent is None:
            return
        event = StageProgress(
            fingerprint=self._job.fingerprint, job_id=self._job.job_id, state=State.SYNTHESIZING, percent=percent
        )
        self._watch(await self._desk.producer.send(topics.OUTCOMES, self._encoded(event)))

    def _message(self, audio: Audio) -> Message:
        chunk = AudioChunk(
            fingerprint=self._job.fingerprint,
            job_id=self._job.job_id,
            take_id=self.take_id,
            index=audio.index,
            sample_rate=self._sample_rate,
            pcm=audio.pcm,
        )
        return encode_chunk(chunk, source=SOURCE, context=self._context)

    def _encoded(self, event: Event) -> Message:
        return encode(event, source=SOURCE, context=self._context)

    def _watch(self, future: "asyncio.Future[object]") -> None:
        self._waiting.add(future)
        future.add_done_callback(self._settled)

    def _settled(self, future: "asyncio.Future[object]") -> None:
        self._waiting.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None and self._error is None:
            self._error = error


def _now() -> float:
    return asyncio.get_running_loop().time()
