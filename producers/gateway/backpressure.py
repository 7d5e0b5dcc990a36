"""How much is queued, how fast it is spoken, and who is let in: bulk is refused before interactive.

What is queued is heard on the bus, job by job; what was queued before this gateway listened is known by dedup's count.
Both are estimates from the whole installation, the same on every gateway. What this gateway has just accepted is added.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from producers.gateway.announced import Announced
from producers.gateway.job_queue import JobQueue
from producers.gateway.problems import ProblemError
from producers.gateway.projection import Projection
from producers.gateway.speedometer import Speedometer
from schemas.audio import BYTES_PER_SAMPLE, AudioChunk, TakeFinished
from schemas.codes import Priority
from schemas.jobs import SynthesisJob

_FIRST_LENGTH_S = 5.0  # of a take, until one was heard
_WEIGHT = 0.1  # of the latest take in the mean length
_IDLE_GAP_S = 1.5  # between chunks of jobs that were never announced; longer pauses are idle time, not slow speech
_COUNTS = 3  # dedup's count and the bus are a moment apart, so only what several counts agree on is believed
_MAX_UNKNOWN = 256
_INTERACTIVE_FACTOR = 2.0


class Backpressure:
    """Figures and the decision. `watch` keeps them fresh."""

    def __init__(self, max_queued_audio_s: float) -> None:
        self._max_queued_audio_s = max_queued_audio_s
        self._mean_length_s = _FIRST_LENGTH_S
        self._jobs = JobQueue()
        self._announced = Announced()
        self._speedometer = Speedometer()
        self._last_chunk = self._busy_since = float("-inf")
        self._unknown: deque[int] = deque([0], maxlen=_COUNTS)
        self._lanes_told = 0
        self._lanes_seen = 1
        self.stats: dict[str, Any] = {}
        """The dedup app's figures, as last told; empty while it does not answer."""

    def announce(self, fingerprint: str, priority: Priority, text: str) -> None:
        """A request was put on the bus here; it counts until its job is heard."""
        if not self._jobs.knows(fingerprint):
            self._announced.add(fingerprint, priority, len(text.encode()), now=time.monotonic())

    def on_job(self, job: SynthesisJob) -> None:
        """A job was sent to the workers."""
        self._announced.heard(job.fingerprint)
        if self._jobs.idle:
            self._busy_since = time.monotonic()
        self._jobs.ordered(job.fingerprint, job.priority, len(job.spec.text.encode()))

    def on_chunk(self, chunk: AudioChunk) -> None:
        """Audio was made."""
        now = time.monotonic()
        length_s = len(chunk.pcm) / BYTES_PER_SAMPLE / max(1, chunk.sample_rate)
        work_s = min(now - self._last_chunk, _IDLE_GAP_S)
        if not self._jobs.idle:
            work_s = now - max(self._last_chunk, self._busy_since)
        self._last_chunk = now
        self._speedometer.heard(length_s, work_s, pressed=self._jobs.pressed)
        self._jobs.heard(chunk.fingerprint, length_s, first=chunk.index == 0)
        self._lanes_seen = max(self._lanes_seen, len(self._jobs.spoken))

    def on_finished(self, take: TakeFinished) -> None:
        """A take was completed."""
        length_s = take.samples / max(1, take.sample_rate)
        self._mean_length_s += _WEIGHT * (length_s - self._mean_length_s)
        self._jobs.finished(take.job.fingerprint, length_s)

    def on_settled(self, fingerprint: str) -> None:
        """A synthesis is stored, failed, or not wanted any more."""
        self._announced.heard(fingerprint)
        self._jobs.settled(fingerprint)

    def on_lost(self) -> None:
        """The bus was away: what was heard of it has holes now."""
        self._jobs = JobQueue(s_per_byte=self._jobs.s_per_byte)

    def in_flight(self, syntheses: int) -> None:
        """So many syntheses are ordered and not stored."""
        self._unknown.append(syntheses - len(self._jobs))
        if len(self._unknown) == _COUNTS and max(self._unknown) < 0:
            self._jobs.settle_oldest(-max(self._unknown))

    @property
    def lanes(self) -> int:
        """Of all slots together: as the workers tell, or as many as were heard at once."""
        return self._lanes_told or self._lanes_seen

    @property
    def queued_audio_s(self) -> float:
        """Audio that was ordered and is not made yet."""
        _, announced_bytes = self._announced.ahead_of(Priority.BULK, now=time.monotonic())
        announced_s = announced_bytes * self._jobs.s_per_byte
        return self._jobs.audio_s + announced_s + max(0, self._unknown[-1]) * self._mean_length_s

    @property
    def speed(self) -> float:
        """Audio seconds made a second, by all slots together, while they work."""
        return self._speedometer.speed

    @property
    def estimated_start_s(self) -> float:
        """`start_estimate_s` of an interactive request."""
        return self.start_estimate_s(Priority.INTERACTIVE)

    def start_estimate_s(self, priority: Priority) -> float:
        """When a request of this priority that comes now is likely to be begun with; 0 when a lane is free."""
        announced, text_bytes = self._announced.ahead_of(priority, now=time.monotonic())
        lengths = _pieces(max(0, min(self._unknown)), self._mean_length_s)
        lengths += _pieces(announced, text_bytes * self._jobs.s_per_byte / max(1, announced))
        return round(self._jobs.start_after_s(priority, lanes=self.lanes, speed=self.speed, unknown_s=lengths), 1)

    def admit(self, priority: Priority) -> None:
        """Let a request in.

        Raises:
            ProblemError: 429, too much is queued for its priority.
        """
        bound_s = self._max_queued_audio_s * (_INTERACTIVE_FACTOR if priority is Priority.INTERACTIVE else 1.0)
        excess_s = self.queued_audio_s - bound_s
        if excess_s > 0:
            raise ProblemError(
                429,
                "queue_full",
                f"too much is queued for {priority} requests",
                retry_after_s=min(600.0, max(1.0, excess_s / self.speed)),
            )

    async def watch(self, projection: Projection, lanes: Callable[[], Awaitable[int]], every_s: float) -> None:
        """Ask dedup and the workers again and again; while they do not answer, the last figures stand."""
        while True:
            self._lanes_told = await lanes() or self._lanes_told
            try:
                self.stats = await projection.stats()
                self.in_flight(int(self.stats.get("in_flight", 0)))
            except ProblemError:
                self.stats = {}
            await asyncio.sleep(every_s)


def _pieces(count: int, length_s: float) -> list[float]:
    """So many lengths; of many as equal pieces."""
    steps = min(count, _MAX_UNKNOWN)
    return [length_s * count / steps] * steps if steps else []
