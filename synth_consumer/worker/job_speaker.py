"""Brings one job to its end: as many takes as it needs, then exactly one end on the bus."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from aiokafka.errors import KafkaError
from ulid import ULID

from infra.kafka.dead_letters import send_dead_letter
from infra.logging import get_logger, trace_id
from schemas.audio import TakeFinished
from schemas.base import utc_now
from schemas.codes import ErrorCode
from schemas.completions import EngineInfo
from schemas.fingerprint import derived_seed
from schemas.jobs import SynthesisJob
from synth_consumer.engines.protocol import SpeechTask
from synth_consumer.worker import metrics
from synth_consumer.worker.engine_keeper import EngineKeeper
from synth_consumer.worker.engine_process import EngineGoneError
from synth_consumer.worker.frames import Failed, Finished
from synth_consumer.worker.job_book import RunningJob
from synth_consumer.worker.retry import Backoff, GiveUp, SpeakAgain, after_failure, before_take, shifted
from synth_consumer.worker.suspects import Suspects
from synth_consumer.worker.take_stream import Desk, TakeStream

_log = get_logger(__name__)

STAGE = "synth"
_BUS_BACKOFF = Backoff(first_s=1.0, most_s=15.0)


class JobSpeaker:
    """Speaks the jobs of one slot."""

    def __init__(self, keeper: EngineKeeper, desk: Desk, suspects: Suspects) -> None:
        self._keeper = keeper
        self._desk = desk
        self._suspects = suspects

    async def speak(self, running: RunningJob, left_engine: Callable[[], None]) -> None:
        """Return when the job's end is on the bus. A bus that refuses is asked again and again, with new takes.

        Cancelled, it says that the take in hand is abandoned and leaves no trace of it.

        Args:
            running: the job.
            left_engine: called when no lane is needed any more and only the bus is waited for.
        """
        failures = 0
        while True:
            attempts = _Attempts(running, self._keeper, self._desk, self._suspects, left_engine)
            try:
                await attempts.run()
            except KafkaError as error:
                failures += 1
                _log.warning("the bus took no audio; speaking again", error=type(error).__name__, **_facts(running))
                await asyncio.sleep(_BUS_BACKOFF.delay_s(failures))
            else:
                await self._suspects.forget(running.job.job_id)
                return


class _Attempts:
    """The takes of one job, until an end."""

    def __init__(
        self,
        running: RunningJob,
        keeper: EngineKeeper,
        desk: Desk,
        suspects: Suspects,
        left_engine: Callable[[], None],
    ) -> None:
        job = running.job
        self._running = running
        self._job = job
        self._keeper = keeper
        self._desk = desk
        self._suspects = suspects
        self._left_engine = left_engine
        self._seed = job.spec.seed if job.spec.seed is not None else derived_seed(job.fingerprint)
        self._takes = 0
        self._repeats = 0
        self._alone = False
        self._started: datetime | None = None

    async def run(self) -> None:
        self._running.in_engine = True
        try:
            decision = await self._until_end()
        except (KafkaError, asyncio.CancelledError):
            raise
        except Exception as error:
            # A defect of ours must not leave a request without an end.
            _log.exception("job failed unexpectedly", **_facts(self._running))
            decision = GiveUp(ErrorCode.INTERNAL, f"the worker failed: {type(error).__name__}", dead_letter=True)
        if decision is not None:
            await self._give_up(decision)

    async def _until_end(self) -> GiveUp | None:
        """Make takes; None when one is on the bus, or why there will be none."""
        while True:
            decision = await self._before_take()
            if isinstance(decision, GiveUp):
                return decision
            try:
                following = await self._take(alone=self._alone or decision.alone)
            except EngineGoneError as gone:
                self._running.last_death = gone.code
                continue
            if not isinstance(following, SpeakAgain):
                return following
            self._repeats += 1
            self._alone |= following.alone
            self._seed = shifted(self._seed, following.seed_shift)

    async def _before_take(self) -> SpeakAgain | GiveUp:
        if self._too_late():
            return _TOO_LATE
        return before_take(await self._suspects.deaths(self._job.job_id), self._running.last_death)

    def _too_late(self) -> bool:
        return self._job.deadline_at is not None and utc_now() >= self._job.deadline_at

    async def _take(self, *, alone: bool) -> SpeakAgain | GiveUp | None:
        """One take; None when it ended well and is on the bus."""
        async with self._keeper.gate.lane(alone=alone):
            if self._too_late():  # it may have waited long for the lane
                return _TOO_LATE
            ready = self._keeper.ready
            self._takes += 1
            self._started = self._started or utc_now()
            stream = TakeStream(
                self._desk,
                self._job,
                self._running.context,
                str(ULID()),
                sample_rate=ready.sample_rate,
                meter=self._running.meter,
            )
            end = await self._in_lane(stream)
        if isinstance(end, Failed):
            return await self._failed(end, stream)
        self._leave_engine()
        info = EngineInfo(name=ready.name, revision=ready.revision, seed=self._seed)
        try:
            await stream.finish(self._summary(end, stream, info, ready.sample_rate))
        except (KafkaError, asyncio.CancelledError):
            await _abandon(stream)
            raise
        metrics.TAKES.labels("finished").inc()
        metrics.AUDIO_SECONDS.inc(end.samples / ready.sample_rate)
        return None

    async def _in_lane(self, stream: TakeStream) -> Finished | Failed:
        try:
            # Only now: a worker that is killed while a job waits for a lane did not die of that job.
            await self._suspects.begin(self._job.job_id)
            await stream.begin()
            end = await self._keeper.speak(_task(self._job, stream.take_id, self._seed), stream.chunk)
        except EngineGoneError as gone:
            await _abandon(stream, gone.code)
            raise
        except (KafkaError, asyncio.CancelledError):
            # Neither the job nor the engine is to blame.
            await self._suspects.unharmed(self._job.job_id)
            await _abandon(stream)
            raise
        await self._suspects.unharmed(self._job.job_id)
        return end

    async def _failed(self, end: Failed, stream: TakeStream) -> SpeakAgain | GiveUp:
        code = ErrorCode(end.code) if end.code in set(ErrorCode) else ErrorCode.INTERNAL
        await _abandon(stream, code)
        return after_failure(code, end.message, repeats=self._repeats)

    def _summary(self, end: Finished, stream: TakeStream, engine: EngineInfo, sample_rate: int) -> TakeFinished:
        started = self._started or utc_now()
        return TakeFinished(
            take_id=stream.take_id,
            job=self._job,
            chunks=end.chunks,
            samples=end.samples,
            sample_rate=sample_rate,
            sha256=end.sha256,
            engine=engine,
            truncated=end.truncated,
            attempts=self._takes,
            queued_ms=_milliseconds(self._job.enqueued_at, started),
            synthesis_ms=_milliseconds(started, utc_now()),
        )

    def _leave_engine(self) -> None:
        self._running.in_engine = False
        self._left_engine()

    async def _give_up(self, decision: GiveUp) -> None:
        self._leave_engine()
        job, context = self._job, self._running.context
        if decision.dead_letter:
            record = self._running.claims[0].record
            await send_dead_letter(
                self._desk.producer,
                record,
                decision.code,
                decision.message,
                stage=STAGE,
                topic=self._running.topic,
            )
        await self._desk.failed(job, context, decision.code, decision.message, self._takes)
        _log.warning("synthesis failed", code=decision.code, reason=decision.message, **_facts(self._running))


async def _abandon(stream: TakeStream, code: ErrorCode | None = None) -> None:
    """Without a code, neither the job nor the engine is to blame."""
    metrics.TAKES.labels(code or "abandoned").inc()
    # A bus that took no chunk may not take this either; readers do without.
    with suppress(KafkaError):
        await stream.abandon(code or ErrorCode.INTERNAL)


_TOO_LATE = GiveUp(ErrorCode.DEADLINE_EXCEEDED, "nobody waits for this any more")


def _task(job: SynthesisJob, take_id: str, seed: int) -> SpeechTask:
    spec = job.spec
    return SpeechTask(
        take_id=take_id,
        text=spec.text,
        language=spec.language,
        dialect=spec.dialect,
        voice=spec.voice,
        seed=seed,
        speed=spec.speed,
        temperature=spec.temperature,
        top_p=spec.top_p,
        top_k=spec.top_k,
        oral=spec.style.oral,
        laugh=spec.style.laugh,
        break_=spec.style.break_,
    )


def _facts(running: RunningJob) -> dict[str, object]:
    job = running.job
    return {
        "job_id": job.job_id,
        "fingerprint": job.fingerprint,
        "request_id": job.request_id,
        "trace_id": trace_id(running.context.traceparent),
    }


def _milliseconds(begin: datetime, end: datetime) -> int:
    # Clocks of two machines may disagree; a job never waited less than nothing.
    return max(0, round((end - begin).total_seconds() * 1000))
