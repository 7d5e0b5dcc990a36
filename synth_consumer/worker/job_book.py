"""Which jobs are in hand in this process, for which records, and which ended lately.

The same job can arrive twice: published twice, or read again after a rebalance while its take still runs, also by
another slot of this process. It is spoken once; every record of it is finished when it ends.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import ConsumerRecord, TopicPartition

from schemas.codec import Context
from schemas.codes import ErrorCode, Priority
from schemas.jobs import SynthesisJob
from synth_consumer.worker.progress import ProgressMeter

_REMEMBERED = 4_096

JobKey = tuple[str, int]
"""`job_id` and `drive`: a job that dedup drives again is to be spoken again, unless it is still on its way."""


class Member(Protocol):
    """What the book asks of a consumer in the group."""

    @property
    def held(self) -> frozenset[TopicPartition]:
        """Partitions held now."""

    @property
    def is_assigned(self) -> bool:
        """Whether the group has settled for this member."""

    def finish(self, record: ConsumerRecord) -> None:
        """The work of a record is done."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One record that asked for a job, and who read it."""

    member: Member
    record: ConsumerRecord
    again: "Callable[[RunningJob, Claim], None]"
    """Called when the job was let go by the slot that spoke it: start it anew, if the record is still yours."""

    @property
    def partition(self) -> TopicPartition:
        """Where the record stands."""
        return TopicPartition(self.record.topic, self.record.partition)


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job in hand."""

    job: SynthesisJob
    context: Context
    priority: Priority
    topic: str  # without namespace
    claims: list[Claim]
    meter: ProgressMeter = field(default_factory=ProgressMeter)
    last_death: ErrorCode | None = None  # how the engine ended that died under it
    cancelled: bool = False  # nobody waits for it any more
    in_engine: bool = True  # waits for a lane or holds one; afterwards only the bus is waited for
    task: "asyncio.Task[None] | None" = None

    @property
    def key(self) -> JobKey:
        """What makes two records the same job."""
        return self.job.job_id, self.job.drive


class JobBook:
    """All jobs of this process. One for all slots."""

    def __init__(self) -> None:
        self._running: dict[JobKey, RunningJob] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()  # job_id: its last drive that ended
        self._members: list[Member] = []
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def cancel(self, job_id: str) -> None:
        """Nobody waits for this job any more: stop it, now or when its record comes."""
        self._cancelled[job_id] = None
        while len(self._cancelled) > _REMEMBERED:
            self._cancelled.popitem(last=False)
        for running in self._running.values():
            if running.job.job_id == job_id and running.task is not None and running.in_engine:
                running.cancelled = True
                running.task.cancel()

    def is_cancelled(self, job_id: str) -> bool:
        """Whether word came that nobody waits for this job."""
        return job_id in self._cancelled

    def enter(self, member: Member) -> None:
        """A slot joined the group."""
        self._members.append(member)

    def leave(self, member: Member) -> None:
        """A slot left the group."""
        self._members.remove(member)

    def attach(self, key: JobKey, claim: Claim) -> bool:
        """Whether the job needs nobody to start it: it runs (the record ends with it), or it ended (the record too)."""
        running = self._running.get(key) or self._under_way(key)
        if running is not None:
            running.claims.append(claim)
            return True
        job_id, drive = key
        # A copy of a drive before the last one that ended waited behind it: nobody needs it any more.
        if drive <= self._ended.get(job_id, -1):
            claim.member.finish(claim.record)
            return True
        return False

    def _under_way(self, key: JobKey) -> RunningJob | None:
        """Another drive of the job whose audio is still to come: it serves both.

        One that has left the engine does not: dedup may have driven the job again because of how it ended.
        """
        job_id, _ = key
        others = (running for running in self._running.values() if running.job.job_id == job_id and running.in_engine)
        return next(others, None)

    def begin(self, running: RunningJob) -> None:
        """A job that is not in hand yet is taken in hand."""
        self._running[running.key] = running

    def end(self, running: RunningJob) -> None:
        """The job came to its end and the bus has it: every record of it is finished."""
        self._running.pop(running.key, None)
        job_id, drive = running.key
        self._ended[job_id] = max(drive, self._ended.pop(job_id, drive))
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        for claim in running.claims:
            claim.member.finish(claim.record)

    def drop(self, running: RunningJob) -> None:
        """The job is let go without an end; whoever holds its record, or reads it next, does it."""
        self._running.pop(running.key, None)
        for claim in running.claims:
            claim.again(running, claim)

    def claimed_by(self, member: Member, partitions: frozenset[TopicPartition]) -> list[RunningJob]:
        """Jobs in hand for records that this member read from these partitions."""
        return [
            job
            for job in self._running.values()
            if any(claim.member is member and claim.partition in partitions for claim in job.claims)
        ]

    def orphans(self) -> list[RunningJob]:
        """Jobs whose partitions all went elsewhere. None while some member waits for its assignment."""
        if not all(member.is_assigned for member in self._members):
            return []
        held = frozenset().union(*(member.held for member in self._members))
        return [job for job in self._running.values() if not any(claim.partition in held for claim in job.claims)]
