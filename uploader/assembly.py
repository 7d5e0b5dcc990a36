"""Takes put together from their chunks: which are whole, which are superseded, stale or broken.

Pure bookkeeping: no samples (they lie in `uploader.spool`), no clock (moments are passed in), no bus. Every record
belongs to a take until the take ends; only then may its offsets be committed. Records may come twice, out of order
within a take, and interleaved with those of other takes.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from schemas.audio import AudioChunk, TakeFinished

_REMEMBERED = 10_000  # takes and jobs whose latecomers are recognised


class RecordPosition(NamedTuple):
    """A record without its value, so that a long take does not stay in memory until its offsets are finished."""

    topic: str
    partition: int
    offset: int


class ChunkVerdict(StrEnum):
    """What to do with a chunk."""

    KEEP = "keep"
    REPEATED = "repeated"
    """Already there; its record ends with the take."""
    SPOILED = "spoiled"
    """The take cannot become whole; its record ends with the take."""
    LATE = "late"
    """The take or its job has ended; its record ends now."""


@dataclass(slots=True)
class Take:
    """What is known of one take."""

    take_id: str
    job_id: str
    fingerprint: str
    sample_rate: int
    heard_at: float  # seconds of the caller's clock
    chunks: dict[int, int] = field(default_factory=dict)  # index -> samples
    positions: list[RecordPosition] = field(default_factory=list)
    spoiled: str | None = None

    @property
    def samples(self) -> int:
        """Samples of all chunks that are there."""
        return sum(self.chunks.values())


@dataclass(frozen=True, slots=True)
class EndedTake:
    """A take whose `TakeFinished` has come. `problem` says why it is not whole; None when it is."""

    take: Take
    event: TakeFinished
    problem: str | None


def problem_of(take: Take, event: TakeFinished) -> str | None:
    """Why the chunks do not add up to what the worker says it sent; None when they do.

    The checksum is compared later, away from the event loop.
    """
    missing = event.chunks - sum(1 for index in take.chunks if index < event.chunks)
    problems = (
        (take.spoiled is not None, take.spoiled),
        ((take.job_id, take.fingerprint) != (event.job.job_id, event.job.fingerprint), "the chunks are another job's"),
        (missing > 0, f"{missing} of {event.chunks} chunks did not arrive"),
        (len(take.chunks) > event.chunks, f"{len(take.chunks)} chunks arrived, {event.chunks} were announced"),
        (take.samples != event.samples, f"{take.samples} samples arrived, {event.samples} were announced"),
        (
            take.sample_rate != event.sample_rate,
            f"chunks have {take.sample_rate} Hz, {event.sample_rate} Hz were announced",
        ),
    )
    return next((words for present, words in problems if present), None)


class _Recent:
    """A bounded memory of ids, each with a word why; oldest forgotten first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: OrderedDict[str, str] = OrderedDict()

    def add(self, identifier: str, why: str = "") -> None:
        self._ids[identifier] = why
        self._ids.move_to_end(identifier)
        while len(self._ids) > self._size:
            self._ids.popitem(last=False)

    def why(self, identifier: str) -> str | None:
        return self._ids.get(identifier)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._ids

    def clear(self) -> None:
        self._ids.clear()


class Assembly:
    """All takes of the partitions held: growing ones, and those in hand (ended, being stored)."""

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        self._growing: dict[str, Take] = {}
        self._in_hand: dict[str, Take] = {}
        self._stored_jobs = _Recent(remembered)
        self._closed_takes = _Recent(remembered)
        self._dropped_takes = _Recent(remembered)

    def __len__(self) -> int:
        """Takes that are growing."""
        return len(self._growing)

    @property
    def in_hand(self) -> int:
        """Takes that have ended and are being stored."""
        return len(self._in_hand)

    def chunk(self, position: RecordPosition, chunk: AudioChunk, *, now: float) -> ChunkVerdict:
        """Note a chunk. Its samples are the caller's to keep when the verdict says so."""
        if self._is_late(chunk):
            return ChunkVerdict.LATE
        take = self._growing.get(chunk.take_id)
        if take is None:
            take = Take(chunk.take_id, chunk.job_id, chunk.fingerprint, chunk.sample_rate, now)
            self._growing[chunk.take_id] = take
        take.positions.append(position)
        take.heard_at = now
        if take.spoiled is None and (chunk.sample_rate, chunk.job_id) != (take.sample_rate, take.job_id):
            take.spoiled = "chunks of one take disagree about its job or sample rate"
        if take.spoiled is not None:
            return ChunkVerdict.SPOILED
        if chunk.index in take.chunks:
            return ChunkVerdict.REPEATED
        if chunk.index < 0:
            take.spoiled = "a chunk has a negative index"
            return ChunkVerdict.SPOILED
        take.chunks[chunk.index] = len(chunk.pcm) // 2
        return ChunkVerdict.KEEP

    def finished(self, position: RecordPosition, event: TakeFinished, *, now: float) -> EndedTake | None:
        """Take an ended take in hand; `stored` or `failed` must follow.

        Returns:
            None when the take was in hand or has ended before: the record ends with it, or now; see `is_in_hand`.
        """
        in_hand = self._in_hand.get(event.take_id)
        if in_hand is not None:
            in_hand.positions.append(position)
            return None
        if event.take_id in self._closed_takes:
            return None
        take = self._growing.pop(event.take_id, None)
        if take is None:
            take = Take(event.take_id, event.job.job_id, event.job.fingerprint, event.sample_rate, now)
            take.spoiled = self._dropped_takes.why(event.take_id)
        take.positions.append(position)
        self._in_hand[event.take_id] = take
        return EndedTake(take, event, problem_of(take, event))

    def spoil(self, take_id: str, reason: str) -> None:
        """The samples of a growing take cannot be kept; it ends as a failure when its end comes."""
        take = self._growing.get(take_id)
        if take is not None:
            take.spoiled = reason

    def is_growing(self, take_id: str) -> bool:
        """Whether chunks of the take are awaited."""
        return take_id in self._growing

    def is_in_hand(self, take_id: str) -> bool:
        """Whether the take has ended and is being stored."""
        return take_id in self._in_hand

    def settled(self, take: Take, *, stored: bool) -> list[Take]:
        """The take in hand came to its end, and the word of it is durable.

        Args:
            take: from `finished`.
            stored: its job has audio now, so further takes of the job are not needed.

        Returns:
            The take, and the growing takes of its job that it supersedes: their records end now.
        """
        self._in_hand.pop(take.take_id, None)
        self._closed_takes.add(take.take_id)
        if not stored:
            return [take]
        self._stored_jobs.add(take.job_id)
        superseded = [other for other in self._growing.values() if other.job_id == take.job_id]
        return [take, *self._drop(superseded, "another take of the job is stored")]

    def abandoned(self, take_id: str) -> Take | None:
        """The worker gave the take up; None when nothing of it is here."""
        take = self._growing.get(take_id)
        return self._drop([take], "its worker had abandoned it")[0] if take else None

    def stale(self, *, now: float, after_s: float) -> list[Take]:
        """Drop the takes that nothing was heard of for so long; their records end now."""
        silent = [take for take in self._growing.values() if now - take.heard_at >= after_s]
        return self._drop(silent, f"given up after {after_s:g} s without a chunk")

    def idlest(self) -> Take | None:
        """Drop the growing take that was silent longest, to make room; its records end now."""
        oldest = min(self._growing.values(), key=lambda take: take.heard_at, default=None)
        why = "given up as the spool was full; raise VOXBUS_UPLOADER__SPOOL__DISK_BYTES"
        return self._drop([oldest], why)[0] if oldest else None

    def heard_all(self, now: float) -> None:
        """Reading went on after a pause, during which nothing could be heard of any take."""
        for take in self._growing.values():
            take.heard_at = now

    def lost(self, partitions: Collection[tuple[str, int]]) -> list[Take]:
        """Forget the takes of partitions that went away: whoever holds them next reads them again from the start."""
        lost = [take for take in self._all() if any(p[:2] in partitions for p in take.positions)]
        for take in lost:
            self._growing.pop(take.take_id, None)
            self._in_hand.pop(take.take_id, None)
        # A dropped take that comes again from its first chunk has another chance.
        self._dropped_takes.clear()
        return lost

    def partitions(self) -> set[tuple[str, int]]:
        """Partitions (topic, number) that takes here have records of."""
        return {position[:2] for take in self._all() for position in take.positions}

    def _all(self) -> Iterator[Take]:
        yield from self._growing.values()
        yield from self._in_hand.values()

    def _is_late(self, chunk: AudioChunk) -> bool:
        return (
            chunk.take_id in self._in_hand
            or chunk.take_id in self._closed_takes
            or chunk.take_id in self._dropped_takes
            or chunk.job_id in self._stored_jobs
        )

    def _drop(self, takes: list[Take], why: str) -> list[Take]:
        for take in takes:
            self._growing.pop(take.take_id, None)
            self._dropped_takes.add(take.take_id, why)
        return takes
