"""One endpoint's line of deliveries, and how much of what all share it may take. Pure but for holding them.

Shared room is given out by dynamic thresholds, as switches share their buffers: one endpoint may take so many times
what is left for all, so its part shrinks as the whole fills, and a newcomer always finds a place.
"""

from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from notifier.endpoint import Breaker, Endpoint, EndpointLimits

# Endpoints remembered; past it those are forgotten that have nothing to do.
_MAX_ENDPOINTS = 4_096
# A queue may be so many times as long as the room that is left for all: one busy endpoint gets two thirds of the whole,
# ten get 9.5% each.
_QUEUE_SHARE = 2
# Of connections, which a hanging endpoint holds much longer than it holds room in the queue: of 512, one endpoint gets
# at most 149 (its window is smaller), 8 get 45 each, 64 get 7 each, and some are left over in every case.
_CONNECTION_SHARE = 0.5
# One connection in so many is for the first attempt of endpoints that answered the last time.
_KEPT = 8

T = TypeVar("T")


class Lineup(Generic[T]):
    """One endpoint's queue."""

    def __init__(self, name: str, state: Endpoint) -> None:
        self.name = name
        self.state = state
        self.queue: deque[T] = deque()
        self.running = 0
        self.listed = False  # stands in the dispatcher's round
        self.timer: TimerHandle | None = None  # lists it again

    @property
    def idle(self) -> bool:
        """Whether nothing of it waits or runs."""
        return not self.queue and not self.running

    def take_out(self, gone: Callable[[T], bool]) -> list[T]:
        """Take out of the queue what is gone."""
        out = [entry for entry in self.queue if gone(entry)]
        if out:
            self.queue = deque(entry for entry in self.queue if not gone(entry))
        return out

    def excess(self, now: float) -> list[T]:
        """Take out the newest of what cannot start in time, now that its endpoint is known to be slower."""
        cut = [self.queue.pop() for _ in range(len(self.queue) - self.state.room(now))]
        return cut[::-1]


class Lineups(Generic[T]):
    """The lines of all endpoints that are remembered."""

    def __init__(self, limits: EndpointLimits) -> None:
        self._limits = limits
        self._lines: dict[str, Lineup[T]] = {}

    def __iter__(self) -> Iterator[Lineup[T]]:
        return iter(self._lines.values())

    def known(self, name: str) -> Lineup[T] | None:
        """The line of an endpoint, unless it is a stranger."""
        return self._lines.get(name)

    def of(self, name: str, rate_per_s: float | None, now: float) -> Lineup[T]:
        """The line of an endpoint, a new one if it is a stranger."""
        line = self._lines.get(name)
        if line is None:
            if len(self._lines) >= _MAX_ENDPOINTS:
                self._lines = {
                    known: other
                    for known, other in self._lines.items()
                    if not other.idle or other.state.breaker(now) is Breaker.OPEN
                }
            line = self._lines[name] = Lineup(name, Endpoint(self._limits, now, rate_per_s))
        return line


@dataclass(frozen=True, slots=True)
class Shares:
    """What is shared."""

    max_connections: int
    max_waiting: int

    def may_queue(self, line: Lineup[T], queued: int, now: float) -> bool:
        """Whether one more may wait.

        Args:
            line: where.
            queued: how many wait in all lines.
            now: the moment.
        """
        return len(line.queue) < min(self._places(queued), line.state.room(now))

    def wanted(self, line: Lineup[T], queued: int, now: float) -> int:
        """How many more a line would like to have waiting; the arguments are those of `may_queue`."""
        return max(0, min(self._places(queued), line.state.appetite(now)) - len(line.queue))

    def _places(self, queued: int) -> int:
        return _QUEUE_SHARE * (self.max_waiting - queued)

    def may_start(self, line: Lineup[T], running: int) -> bool:
        """Whether one more attempt may run, of those `running` in all lines."""
        free = self.max_connections - running
        if not line.running and line.state.proven:
            return free > 0
        open_to_all = free - self.max_connections // _KEPT
        return open_to_all > 0 and line.running < max(1, _CONNECTION_SHARE * open_to_all)
