"""How much is queued, how fast it is spoken, and who is let in: bulk is refused before interactive.

Queued audio is what dedup has in flight times the length of recent takes; speed is audio heard on the bus per second
of work. Both are estimates from the whole installation, the same on every gateway.
"""

import asyncio
import time
from collections import deque
from typing import Any

from producers.gateway.problems import ProblemError
from producers.gateway.projection import Projection
from schemas.audio import BYTES_PER_SAMPLE, AudioChunk, TakeFinished
from schemas.codes import Priority

_WINDOW_S = 60.0
_FIRST_LENGTH_S = 5.0  # of a take, until one was heard
_FIRST_SPEED = 1.0  # audio seconds a second, until some was heard
_WEIGHT = 0.1  # of the latest take in the mean length
_IDLE_GAP_S = 1.5  # longer pauses between chunks are idle time, not slow speech
_INTERACTIVE_FACTOR = 2.0


class Backpressure:
    """Figures and the decision. `watch` keeps them fresh."""

    def __init__(self, max_queued_audio_s: float) -> None:
        self._max_queued_audio_s = max_queued_audio_s
        self._mean_length_s = _FIRST_LENGTH_S
        self._heard: deque[tuple[float, float, float]] = deque()  # moment, audio seconds, seconds of work
        self._audio_s = self._work_s = 0.0
        self._last_chunk = float("-inf")
        self._in_flight = 0
        self.stats: dict[str, Any] = {}
        """The dedup app's figures, as last told; empty while it does not answer."""

    def on_chunk(self, chunk: AudioChunk) -> None:
        """Audio was made."""
        now = time.monotonic()
        length_s = len(chunk.pcm) / BYTES_PER_SAMPLE / max(1, chunk.sample_rate)
        work_s = min(now - self._last_chunk, _IDLE_GAP_S)
        self._last_chunk = now
        self._heard.append((now, length_s, work_s))
        self._audio_s += length_s
        self._work_s += work_s
        while self._heard and self._heard[0][0] < now - _WINDOW_S:
            _, audio_s, spent_s = self._heard.popleft()
            self._audio_s -= audio_s
            self._work_s -= spent_s

    def on_finished(self, take: TakeFinished) -> None:
        """A take was completed."""
        length_s = take.samples / max(1, take.sample_rate)
        self._mean_length_s += _WEIGHT * (length_s - self._mean_length_s)

    def in_flight(self, syntheses: int) -> None:
        """So many syntheses are ordered and not stored."""
        self._in_flight = syntheses

    @property
    def queued_audio_s(self) -> float:
        """Audio that was ordered and is not stored yet."""
        return self._in_flight * self._mean_length_s

    @property
    def speed(self) -> float:
        """Audio seconds made a second, by all slots together, while they work."""
        return max(0.01, self._audio_s / self._work_s) if self._work_s > 1.0 else _FIRST_SPEED

    @property
    def estimated_start_s(self) -> float:
        """When a request that comes now is likely to be begun with."""
        return round(self.queued_audio_s / self.speed, 1)

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

    async def watch(self, projection: Projection, every_s: float) -> None:
        """Ask dedup again and again; while it does not answer, the last figures stand."""
        while True:
            try:
                self.stats = await projection.stats()
                self.in_flight(int(self.stats.get("in_flight", 0)))
            except ProblemError:
                self.stats = {}
            await asyncio.sleep(every_s)
