"""One device slot: a member of the group that takes only what its engine can hold."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from infra import metrics as common_metrics
from infra.kafka.clients import BusProducer
from infra.kafka.dead_letters import send_dead_letter
from infra.kafka.work import WorkConsumer, work_consumer
from infra.lifecycle import Deadline
from infra.logging import get_logger
from infra.settings import KafkaSettings
from schemas import topics
from schemas.codec import Context, DecodeError, context_of, decode
from schemas.codes import ErrorCode, Priority
from schemas.jobs import SynthesisJob
from synth_consumer.worker.engine_keeper import EngineKeeper
from synth_consumer.worker.engine_process import EngineGoneError
from synth_consumer.worker.job_book import Claim, JobBook, RunningJob
from synth_consumer.worker.job_speaker import STAGE, JobSpeaker
from synth_consumer.worker.settings import SynthSettings
from synth_consumer.worker.turns import Turns

_log = get_logger(__name__)

GROUP = "voxbus.synth"
_TOPIC_OF = {Priority.INTERACTIVE: topics.JOBS_INTERACTIVE, Priority.BULK: topics.JOBS_BULK}
# Jobs are about a kilobyte; a lane's next job is then at hand, and little is fetched twice after a rebalance.
_PREFETCH_BYTES = 65_536
# One poll; also how soon a stop or a lost engine is noticed.
_POLL_S = 0.2
# Jobs whose audio is made and only waits for the bus, beside twice the lanes: enough to cover a slow broker's round
# trips. Their memory is bounded by the chunks that may be unsent.
_SETTLING = 16
# After a rebalance, the other slots of this process learn their partitions within this time.
_ORPHAN_GRACE_S = 3.0


class Slot:
    """Pulls jobs while lanes are free, and keeps them until their end is on the bus."""

    def __init__(
        self,
        index: int,
        *,
        settings: SynthSettings,
        kafka: KafkaSettings,
        keeper: EngineKeeper,
        speaker: JobSpeaker,
        book: JobBook,
        producer: BusProducer,
        drain_timeout_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self.index = index
        self._settings = settings
        self._kafka = kafka
        self._keeper = keeper
        self._speaker = speaker
        self._book = book
        self._producer = producer
        self._drain_timeout_s = drain_timeout_s
        self._on_change = on_change
        self._jobs: set[RunningJob] = set()
        self._lane_freed = asyncio.Event()
        self._sweep: asyncio.Task[None] | None = None
        self._work: WorkConsumer | None = None
        self._pulling = False
        self._defect: BaseException | None = None

    @property
    def waiting_for(self) -> str | None:
        """Why this slot takes no work; None when it does."""
        if not self._keeper.up.is_set():
            return "engine loading"
        if self._work is None or not self._work.is_assigned:
            return "joining the group"
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; join the group only with a warm engine, leave it when the engine stays away."""
        while not stop.is_set():
            await _until(stop, self._keeper.up.wait())
            if not stop.is_set():
                # Joining takes seconds on a slow bus, and the engine may die meanwhile.
                with suppress(EngineGoneError):
                    await self._serve(stop)

    async def _serve(self, stop: asyncio.Event) -> None:
        async with work_consumer(
            self._kafka,
            topics=list(_TOPIC_OF.values()),
            group=GROUP,
            stage=STAGE,
            hooks=self,
            drain_s=self._settings.revoke_drain_s,
            prefetch_bytes=_PREFETCH_BYTES,
        ) as work:
            self._work = work
            self._book.enter(work)
            self._on_change()
            self._pulling = True
            try:
                await _until(stop, self._pull(work))
                self._pulling = False
                await _drain(self._jobs, Deadline(self._drain_timeout_s if stop.is_set() else 0))
            finally:
                self._pulling = False
                self._book.leave(work)
                if self._sweep is not None:
                    self._sweep.cancel()
                await _release(self._jobs)
                self._work = None
                self._on_change()

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        """A rebalance begins: give the takes of these partitions some time. Nothing new is read meanwhile."""
        self._on_change()
        if self._work is not None:
            await _drain(self._book.claimed_by(self._work, partitions), deadline)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """The group settled; takes that went on meanwhile are kept or let go."""
        _log.info("partitions assigned", slot=self.index, partitions=len(partitions))
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = asyncio.create_task(self._settled())

    async def _settled(self) -> None:
        """End takes whose partitions went to another process, once every slot here knows its own."""
        self._on_change()  # not earlier: the member counts as assigned when its hook has returned
        await asyncio.sleep(_ORPHAN_GRACE_S)
        for running in self._book.orphans():
            _log.info("take let go, its partition went elsewhere", slot=self.index, job_id=running.job.job_id)
            if running.task is not None:
                running.task.cancel()

    async def _pull(self, work: WorkConsumer) -> None:
        """Take jobs while lanes are free; return when the engine has been away for too long."""
        turns = Turns(self._keeper.gate.lanes, run=self._settings.bulk_every - 1)
        while self._keeper.down_s < self._settings.leave_after_s:
            if self._defect is not None:
                raise self._defect
            queues = self._open_queues(turns)
            self._lane_freed.clear()
            if queues:
                record = await _next(work, queues)
                if record is not None:
                    turns.took(_priority(work.topic_of(record)))
                    await self._accept(work, record)
            else:
                await work.fetch(max_records=1, timeout_s=0, topics=())
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await self._lane_freed.wait()

    def _open_queues(self, turns: Turns) -> tuple[Priority, ...]:
        # Each time anew: an engine short of memory takes lanes away, and its successor may have others.
        turns.resize(self._keeper.gate.lanes, self._settings.interactive_lanes)
        if not self._keeper.up.is_set() or len(self._jobs) >= 2 * turns.lanes + _SETTLING:
            return ()
        ahead = [running for running in self._jobs if running.in_engine]
        bulk = sum(running.priority is Priority.BULK for running in ahead)
        return turns.order(busy=len(ahead), busy_bulk=bulk)

    async def _accept(self, work: WorkConsumer, record: ConsumerRecord) -> None:
        topic = work.topic_of(record)
        try:
            job = decode(SynthesisJob, record.value)
        except DecodeError as error:
            await send_dead_letter(
                self._producer,
                record,
                ErrorCode.INVALID_REQUEST,
                str(error),
                stage=STAGE,
                topic=topic,
                pointer=error.pointer,
            )
            work.finish(record)
            common_metrics.MESSAGES.labels(STAGE, topic, "dead_letter").inc()
            return
        if self._book.is_cancelled(job.job_id):
            work.finish(record)
            common_metrics.MESSAGES.labels(STAGE, topic, "cancelled").inc()
            return
        claim = Claim(work, record, self._again)
        context = Context(context_of(record.headers).traceparent)
        if self._book.attach((job.job_id, job.drive), claim):
            common_metrics.MESSAGES.labels(STAGE, topic, "repeat").inc()
            return
        self._begin(RunningJob(job, context, _priority(topic), topic, [claim]))

    def _begin(self, running: RunningJob) -> None:
        self._book.begin(running)
        self._jobs.add(running)
        work = self._speaker.speak(running, self._freed)
        running.task = asyncio.create_task(work, name=f"job {running.job.job_id}")
        # Not in the task: one that is cancelled before its first step runs none of its code.
        running.task.add_done_callback(partial(self._ended, running, time.monotonic()))

    def _again(self, former: RunningJob, claim: Claim) -> None:
        """Another slot of this process let a job go for which this one read a record: it is ours now."""
        if not self._pulling or claim.member is not self._work or claim.partition not in claim.member.held:
            return
        if not self._book.attach(former.key, claim):
            self._begin(RunningJob(former.job, former.context, former.priority, former.topic, [claim], former.meter))

    def _ended(self, running: RunningJob, started: float, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A defect of ours. The job comes again; this process, whose state nobody can vouch for, ends.
            _log.error("job not seen through", job_id=running.job.job_id, exc_info=error)
            self._defect = error
        result = "finished"
        if task.cancelled():
            result = "cancelled" if running.cancelled else "released"
        elif error is not None:
            result = "error"
        self._jobs.discard(running)
        if result in {"finished", "cancelled"}:
            self._book.end(running)
        else:
            self._book.drop(running)
        self._freed()
        common_metrics.MESSAGES.labels(STAGE, running.topic, result).inc()
        common_metrics.HANDLING.labels(STAGE, running.topic).observe(time.monotonic() - started)

    def _freed(self) -> None:
        self._lane_freed.set()
        self._on_change()


async def _drain(jobs: Collection[RunningJob], deadline: Deadline) -> None:
    tasks = {running.task for running in jobs if running.task is not None}
    if tasks:
        await asyncio.wait(tasks, timeout=deadline.remaining_s)


async def _release(jobs: Collection[RunningJob]) -> None:
    tasks = {running.task for running in jobs if running.task is not None}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _next(work: WorkConsumer, queues: tuple[Priority, ...]) -> ConsumerRecord | None:
    """One record: of the first queue that has one at hand, else of the first to get one."""
    for queue in queues:
        records = await work.fetch(max_records=1, timeout_s=0, topics=[_TOPIC_OF[queue]])
        if records:
            return records[0]
    records = await work.fetch(max_records=1, timeout_s=_POLL_S, topics=[_TOPIC_OF[queue] for queue in queues])
    return records[0] if records else None


def _priority(topic: str) -> Priority:
    return Priority.BULK if topic == topics.JOBS_BULK else Priority.INTERACTIVE


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Run something until it ends or `stop` is set; then it is cancelled and waited for."""
    running, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
    if not running.cancelled():
        running.result()  # an error of the work is ours
