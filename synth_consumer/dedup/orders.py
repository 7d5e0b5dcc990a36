"""What decisions share: their bounds, the rows they see, and the work orders they give."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from schemas import topics
from schemas.codec import Context
from schemas.codes import AudioFormat, Priority
from schemas.jobs import JobCancelled, SynthesisJob, TranscodeRequested
from synth_consumer.dedup.rows import Stored, SynthesisRow, WaiterRow, moment
from synth_consumer.dedup.steps import Output, Write, say

# Many times the half second after which finished events are committed.
TOLD_KEPT_S = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The clocks and bounds of the decisions; see `DedupSettings`. Seconds."""

    stored_ttl_s: float
    redrive_after_s: float
    max_drives: int
    progress_fan_out: int

    def due(self, now: float, drive: int) -> float:
        """When work of which nothing is heard is driven again: doubled with every drive."""
        return now + float(self.redrive_after_s * 2 ** (drive - 1))

    def due_in_queue(self, now: float, drive: int, deadline_at: float) -> float:
        """When a job that no worker has begun is driven again.

        Waiting in a queue is no silence: each copy would be spoken, and the queue grow by it. A lost job looks the
        same, so it is driven again at half of the time that is left, and the last drive has all of it.
        """
        left = deadline_at - now if drive >= self.max_drives else (deadline_at - now) / 2
        return max(self.due(now, drive), now + left)


class View(Protocol):
    """The rows of the partition at hand, as they stand."""

    def synthesis(self, fingerprint: str) -> SynthesisRow | None:
        """One synthesis."""

    def waiter(self, fingerprint: str, request_id: str) -> WaiterRow | None:
        """One waiter, also one that is just being told its end."""

    def waiters(self, fingerprint: str) -> Iterable[WaiterRow]:
        """Waiters of a synthesis that are not being told their end yet, the longest waiting first."""

    def waiting(self, fingerprint: str) -> int:
        """How many wait for a synthesis, with those who are just being told their end."""


def stop(row: SynthesisRow) -> Output:
    """Word to the workers that nobody waits for a job any more."""
    cancelled = JobCancelled(job_id=row.job_id, fingerprint=row.fingerprint)
    return say(topics.CONTROL, cancelled, Context(row.traceparent), event_id=f"{row.job_id}:cancelled")


def job(row: SynthesisRow, now: float) -> Output:
    """The work order of a pending synthesis.

    Raises:
        ValueError: the row is not pending.
    """
    if row.spec is None:
        raise ValueError(f"synthesis {row.fingerprint} is {row.state}, it has no job")
    order = SynthesisJob(
        job_id=row.job_id,
        fingerprint=row.fingerprint,
        spec=row.spec,
        formats=row.formats,
        priority=row.priority,
        request_id=row.request_id,
        enqueued_at=moment(now),
        deadline_at=moment(row.deadline_at),
        drive=row.drive,
    )
    topic = topics.JOBS_INTERACTIVE if row.priority is Priority.INTERACTIVE else topics.JOBS_BULK
    return say(topic, order, Context(row.traceparent), event_id=f"{row.job_id}:{row.drive}")


def transcode(
    row: SynthesisRow, stored: Stored, job_id: str, formats: tuple[AudioFormat, ...], now: float, trace: str | None
) -> Output:
    """The work order for renditions that a stored synthesis lacks."""
    order = TranscodeRequested(
        job_id=job_id,
        fingerprint=row.fingerprint,
        master=stored.master,
        formats=formats,
        duration_s=stored.duration_s,
        sample_rate=stored.sample_rate,
        engine=stored.engine,
        enqueued_at=moment(now),
    )
    return say(topics.TRANSCODES, order, Context(trace))


def synthesis_write(row: SynthesisRow) -> Write:
    """The row of a synthesis as it stands from now on."""
    return Write("syntheses", row.fingerprint.encode(), row)


def waiter_write(row: WaiterRow) -> Write:
    """The row of a waiter as it stands from now on."""
    return Write("waiters", row.key, row)


def told_write(row: WaiterRow, now: float) -> Write:
    """The row of a waiter whose end is told.

    It stays for a while: the message of the request may be delivered again until its offset is committed, and must
    begin nothing then, nor be told its good end with another body, as if the audio had been there before.
    """
    return Write("waiters", row.key, row.model_copy(update={"remove_at": now + TOLD_KEPT_S}))
