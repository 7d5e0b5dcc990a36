"""The jobs of the whole installation as heard on the bus: waiting, being spoken, made. Pure bookkeeping.

A job's length is known by its text until its audio is: by the bytes of its UTF-8, of which Chinese and Latin texts need
about the same number for a second of speech. How many is learned from the takes that end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace

from schemas.codes import Priority

_FIRST_S_PER_BYTE = 0.07  # 13 to 15 Latin letters, or 5 Chinese characters of 3 bytes, a second
_WEIGHT = 0.1  # of the latest take in what is learned
_MAX_JOBS = 100_000  # more are not told apart: dedup's count of them has to do
_MAX_STEPS = 256  # longer queues are taken as so many equal pieces
_BULK_EVERY = 4  # the worker's default: of so many starts one is a bulk job's, when both wait


@dataclass(slots=True)
class Spoken:
    """A job that is being spoken."""

    priority: Priority
    text_bytes: int
    heard_s: float = 0.0


@dataclass(slots=True)
class JobQueue:
    """Jobs by fingerprint."""

    waiting: dict[Priority, dict[str, int]] = field(default_factory=lambda: {priority: {} for priority in Priority})
    """Bytes of text."""
    spoken: dict[str, Spoken] = field(default_factory=dict)
    made: dict[str, None] = field(default_factory=dict)
    """Not stored yet, so dedup still counts them as in flight."""
    s_per_byte: float = _FIRST_S_PER_BYTE
    _waiting_bytes: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values())) + len(self.spoken) + len(self.made)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be spoken."""
        return not self.spoken and not self.pressed

    @property
    def pressed(self) -> bool:
        """Whether some wait."""
        return any(self.waiting.values())

    @property
    def audio_s(self) -> float:
        """Audio that is to be made, in seconds."""
        waiting_s = sum(self._waiting_bytes.values()) * self.s_per_byte
        return waiting_s + sum(map(self._rest_s, self.spoken.values()))

    def knows(self, fingerprint: str) -> bool:
        """Whether it waits, is spoken, or is made and not stored."""
        return (
            fingerprint in self.spoken
            or fingerprint in self.made
            or any(fingerprint in queue for queue in self.waiting.values())
        )

    def ordered(self, fingerprint: str, priority: Priority, text_bytes: int) -> None:
        """A job was sent to the workers. A repeat of one that is known changes nothing."""
        if (self.knows(fingerprint) and fingerprint not in self.made) or len(self) >= _MAX_JOBS:
            return
        self.made.pop(fingerprint, None)
        self.waiting[priority][fingerprint] = text_bytes
        self._waiting_bytes[priority] += text_bytes

    def heard(self, fingerprint: str, length_s: float, *, first: bool) -> None:
        """So much of it was spoken; `first`: from its beginning, perhaps once more."""
        job = self.spoken.get(fingerprint)
        if job is None:
            for priority, queue in self.waiting.items():
                if fingerprint in queue:
                    job = self.spoken[fingerprint] = Spoken(priority, queue[fingerprint])
            self._leave_waiting(fingerprint)
        if job is not None:
            job.heard_s = length_s if first else job.heard_s + length_s

    def finished(self, fingerprint: str, length_s: float) -> None:
        """All of it was spoken."""
        job = self.spoken.get(fingerprint)
        if job is not None and job.text_bytes and length_s:
            self.s_per_byte += _WEIGHT * (length_s / job.text_bytes - self.s_per_byte)
        if job is not None or self._leave_waiting(fingerprint):
            self.spoken.pop(fingerprint, None)
            self.made[fingerprint] = None

    def settled(self, fingerprint: str) -> None:
        """It is stored, failed, or nobody waits for it any more."""
        self._leave_waiting(fingerprint)
        self.spoken.pop(fingerprint, None)
        self.made.pop(fingerprint, None)

    def settle_oldest(self, count: int) -> None:
        """So many have ended unheard."""
        for fingerprint in [name for name, _ in zip(self._by_age(), range(count), strict=False)]:
            self.settled(fingerprint)

    def start_after_s(self, priority: Priority, *, lanes: int, speed: float, unknown_s: list[float]) -> float:
        """When a job that comes now is begun with, in seconds from now.

        Args:
            priority: of the job. Interactive ones go first; of `_BULK_EVERY` starts bulk has one.
            lanes: of all slots together.
            speed: audio seconds made a second, all lanes together.
            unknown_s: lengths of jobs that are in flight too, before this one.
        """
        waiting = self.waiting[Priority.INTERACTIVE]
        bulk = self.waiting[Priority.BULK]
        ahead = [*unknown_s, *self._lengths_s(Priority.INTERACTIVE, len(waiting))]
        due = len(bulk) if priority is Priority.BULK else min(len(bulk), len(waiting) // (_BULK_EVERY - 1))
        ahead += self._lengths_s(Priority.BULK, due)
        rests = list(map(self._rest_s, self.spoken.values()))
        free = lanes - len(rests)
        if priority is Priority.BULK:
            # A quarter of the lanes is kept free of bulk.
            spoken = sum(job.priority is Priority.BULK for job in self.spoken.values())
            free = min(free, max(1, lanes - lanes // 4) - spoken)
        return start_after_s(rests, ahead, free=max(0, free), speed_of_lane=speed / max(lanes, len(rests), 1))

    def _lengths_s(self, priority: Priority, count: int) -> list[float]:
        """Lengths of the first `count` that wait; of a long queue as equal pieces."""
        queue = self.waiting[priority]
        if not count or count > _MAX_STEPS or count < len(queue):
            mean_s = self._waiting_bytes[priority] * self.s_per_byte / max(1, len(queue))
            steps = min(count, _MAX_STEPS)
            return [mean_s * count / steps] * steps if steps else []
        return [size * self.s_per_byte for size in queue.values()]

    def _rest_s(self, job: Spoken) -> float:
        whole_s = job.text_bytes * self.s_per_byte
        return max(0.05 * whole_s, whole_s - job.heard_s)

    def _leave_waiting(self, fingerprint: str) -> bool:
        for priority, queue in self.waiting.items():
            if (size := queue.pop(fingerprint, None)) is not None:
                self._waiting_bytes[priority] -= size
                return True
        return False

    def _by_age(self) -> Iterator[str]:
        yield from self.made
        yield from self.spoken
        for queue in self.waiting.values():
            yield from queue


def start_after_s(rests_s: list[float], ahead_s: list[float], *, free: int, speed_of_lane: float) -> float:
    """When the next lane is free for one who waits behind all others.

    Args:
        rests_s: audio that is left to be spoken in each busy lane.
        ahead_s: audio of each job that waits, in the order of their starts.
        free: lanes that nobody speaks in.
        speed_of_lane: audio seconds a second of one lane, while all of them speak.
    """
    ends = [*([0.0] * free), *(rest / speed_of_lane for rest in rests_s)] or [0.0]
    heapify(ends)
    for length in ahead_s:
        heapreplace(ends, ends[0] + length / speed_of_lane)
    return ends[0]
