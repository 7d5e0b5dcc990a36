"""What is known of one endpoint (host and port): how much it may be given at once, and whether to leave it alone.

Pure: the time is an argument, in seconds of a monotonic clock.
"""

from dataclasses import dataclass
from enum import StrEnum

from notifier.attempt import Answer, AttemptResult

# An endpoint that has not answered yet.
_FIRST_WINDOW = 8
# Deliveries a second assumed of an endpoint until it is known better, and the slowest that turns are spaced by.
_FASTEST_RATE = 1_000.0
# Answers that take no longer may be slow by our own doing, as a burst fills the event loop: to put off what waits for
# them would cost more work, not less (20,000 to one fast receiver: 1,070 deliveries a second against 430).
_PROMPT_S = 0.5
# Of a stranger whose first answer is not prompt. Too low a rate spreads a burst for one that only met a busy moment
# over minutes (20,000 at 100 a second, judged after 0.1 s: 277 deliveries a second against 1,200).
_STRANGE_RATE = 200.0
_SLOWEST_RATE = 20.0
# So far ahead an endpoint that answers calls up what waits on the bus for its room: some rounds of the retry intake.
_AHEAD_S = 1.0
# Weight of the newest attempt in the mean duration.
_NEWEST = 0.1


class Breaker(StrEnum):
    """State of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """Bounds that all endpoints share."""

    max_window: int = 64
    breaker_failures: int = 10
    open_s: float = 1.0
    max_open_s: float = 60.0
    patience_s: float = 15.0
    """Without an answer for this long, a failure halves what the endpoint is given at once."""
    attempt_s: float = 15.0
    """What one attempt may take. What would wait longer than that for its turn waits on the bus."""


class Endpoint:
    """The state of one endpoint."""

    def __init__(self, limits: EndpointLimits, now: float, rate_per_s: float | None = None) -> None:
        """`rate_per_s`: no more attempts may start in a second."""
        self._limits = limits
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._next_start = now
        self._window = float(min(_FIRST_WINDOW, limits.max_window))
        self._failures = 0
        self._open_until: float | None = None
        self._open_s = limits.open_s
        self._last_answer = now
        self._mean_s: float | None = None
        self._last_turn = now
        self._answered = False
        self._running = 0
        self._silent_since = now

    @property
    def proven(self) -> bool:
        """Whether it is known to answer, and did so the last time."""
        return self._answered and not self._failures

    def breaker(self, now: float) -> Breaker:
        """Whether deliveries may go there now; while probing, one at a time."""
        if self._open_until is None:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self._open_until else Breaker.PROBING

    def window(self, now: float) -> int:
        """How many attempts may run at once."""
        match self.breaker(now):
            case Breaker.OPEN:
                return 0
            case Breaker.PROBING:
                return 1
            case _:
                return int(self._window)

    def pause_s(self, now: float) -> float:
        """Until another attempt may start."""
        return max(0.0, self._next_start - now)

    def started(self, now: float) -> None:
        """An attempt starts."""
        if not self._running:
            self._silent_since = now
        self._running += 1
        self._next_start = max(self._next_start, now) + self._interval_s

    def note(self, result: AttemptResult, now: float) -> bool:
        """Learn from an attempt.

        Returns:
            Whether the circuit opened by it: what waits for this endpoint should wait elsewhere.
        """
        self._running = max(0, self._running - 1)
        self._silent_since = now
        if result.answer is Answer.REFUSED:
            return False  # by us; the endpoint had no part in it
        last_s = result.latency_s
        self._mean_s = last_s if self._mean_s is None else self._mean_s + _NEWEST * (last_s - self._mean_s)
        if result.alive:
            if not self.proven:
                self._last_turn = now  # what was put off while it was in doubt does not hold up what comes now
            self._answered = True
            self._failures = 0
            self._open_until = None
            self._open_s = self._limits.open_s
            self._last_answer = now
            self._window = min(float(self._limits.max_window), self._window + 1)
            return False
        self._failures += 1
        if now - self._last_answer >= self._limits.patience_s:
            self._window = max(1.0, self._window / 2)
        return self._pause(result.retry_after_s, now) if result.retry_after_s else self._trip(now)

    def given_up(self) -> None:
        """An attempt was cancelled by us, and says nothing of the endpoint."""
        self._running = max(0, self._running - 1)

    def room(self, now: float) -> int:
        """How many may wait for it in memory: what can start within the time of one attempt, and at least one.

        What waits holds the offsets of its partition back, so that a restart reads from there.
        """
        prompt = self.proven and self._mean_s is not None and max(self._mean_s, self._silence_s(now)) <= _PROMPT_S
        rate = _FASTEST_RATE if prompt else self._capacity(now)
        return max(1, int(self._limited(rate) * self._limits.attempt_s))

    def appetite(self, now: float) -> int:
        """How many should wait for it in memory for it never to be idle: what can start soon; none while in doubt."""
        if not self.proven or self.breaker(now) is not Breaker.CLOSED:
            return 0
        return min(self.room(now), max(self._limits.max_window, int(self._limited(self._capacity(now)) * _AHEAD_S)))

    def put_off_s(self, queued: int, now: float) -> float:
        """In how many seconds one more delivery should come again: after the pause, at its turn.

        Turns are spaced by the endpoint's own rate, so that a thousand put off at once do not return at once.

        Args:
            queued: deliveries that wait for it in memory.
            now: the moment.
        """
        # Too high a rate costs a second trip over the bus, too low a one leaves the endpoint idle.
        rate = self._limited(max(_SLOWEST_RATE, self._capacity(now)))
        free_at = max(now, self._open_until or now) + queued / rate
        self._last_turn = max(self._last_turn, free_at) + 1 / rate
        return self._last_turn - now

    def _pause(self, asked_s: float, now: float) -> bool:
        # Of 429 and 503. Many receivers may live behind one host, and one of them asked, so the bound is that of a
        # circuit; the delivery that met it waits for as long as was asked.
        self._open_until = max(self._open_until or now, now + min(asked_s, self._limits.max_open_s))
        return True

    def _trip(self, now: float) -> bool:
        probing = self.breaker(now) is Breaker.PROBING
        if not probing and (self._open_until is not None or self._failures < self._limits.breaker_failures):
            return False
        if probing:
            self._open_s = min(self._limits.max_open_s, self._open_s * 2)
        self._open_until = now + self._open_s
        return True

    def _limited(self, rate: float) -> float:
        return min(rate, 1 / self._interval_s) if self._interval_s else rate

    def _silence_s(self, now: float) -> float:
        """For how long attempts have been running of which none ended: each takes at least that."""
        return now - self._silent_since if self._running else 0.0

    def _capacity(self, now: float) -> float:
        """Deliveries a second it can take, by Little's law: what runs at once over how long each takes.

        One that answers will soon be given its whole window.
        """
        silence_s = self._silence_s(now)
        if self._mean_s is None:
            return _STRANGE_RATE if silence_s > _PROMPT_S else _FASTEST_RATE
        window = self._window if self._failures else self._limits.max_window
        return min(_FASTEST_RATE, window / max(self._mean_s, silence_s if silence_s > _PROMPT_S else 1e-6))
