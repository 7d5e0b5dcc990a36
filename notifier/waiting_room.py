"""Deliveries of one retry tier that were read before they are due. Pure but for holding them.

What waits stays uncommitted on its topic; this is only the window that has been read, and its size is bounded, so
losing it loses nothing.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count
from typing import Generic, TypeVar

from aiokafka import ConsumerRecord

from notifier.delivery import Delivery

# Moments kept of things that are gone before they are cleared away.
_STALE = 1_000

T = TypeVar("T")


class WaitingRoom(Generic[T]):
    """Gives things back when their time has come, the earliest first, or before, to the line they wait for."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []  # moment, number; what was called up before its time stays in it
        self._things: dict[int, tuple[T, str | None]] = {}
        self._lines: dict[str, OrderedDict[int, None]] = {}
        self._arrival = count()  # ties go by arrival; the things themselves need no order

    def __len__(self) -> int:
        return len(self._things)

    @property
    def lines(self) -> list[str]:
        """Whoever may call somebody up."""
        return list(self._lines)

    def add(self, thing: T, release_ms: int, line: str | None = None) -> None:
        """Let a thing wait until a moment, in milliseconds since 1970, or until its line calls it up."""
        number = next(self._arrival)
        self._things[number] = thing, line
        heapq.heappush(self._heap, (release_ms, number))
        if line is not None:
            self._lines.setdefault(line, OrderedDict())[number] = None

    def next_ms(self) -> int | None:
        """When the earliest is to be released; None while nobody waits."""
        while self._heap and self._heap[0][1] not in self._things:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def released(self, now_ms: int, at_most: int) -> Iterable[T]:
        """Take out what is due, at most so many."""
        while at_most > 0 and (moment := self.next_ms()) is not None and moment <= now_ms:
            at_most -= 1
            yield self._take(heapq.heappop(self._heap)[1])

    def called_up(self, line: str, at_most: int) -> Iterable[T]:
        """Take out what waits for this line, whenever it is due; those that came first, at most so many."""
        while at_most > 0 and line in self._lines:
            at_most -= 1
            yield self._take(next(iter(self._lines[line])))
        if len(self._heap) > 2 * len(self._things) + _STALE:
            self._heap = [entry for entry in self._heap if entry[1] in self._things]
            heapq.heapify(self._heap)

    def clear(self) -> None:
        """Forget everybody."""
        self._heap.clear()
        self._things.clear()
        self._lines.clear()

    def _take(self, number: int) -> T:
        thing, line = self._things.pop(number)
        if line is not None:
            del self._lines[line][number]
            if not self._lines[line]:
                del self._lines[line]
        return thing


class Tier:
    """The read part of one tier: what will be attempted from here, and what moves on to another tier."""

    def __init__(self) -> None:
        self.attempts: WaitingRoom[tuple[ConsumerRecord, Delivery]] = WaitingRoom()
        self.moves: WaitingRoom[tuple[ConsumerRecord, Delivery]] = WaitingRoom()

    def __len__(self) -> int:
        return len(self.attempts) + len(self.moves)

    @property
    def lines(self) -> set[str]:
        """Endpoints whose room somebody waits for."""
        return {*self.attempts.lines, *self.moves.lines}

    def add(self, record: ConsumerRecord, delivery: Delivery, line: str | None) -> None:
        """Hold a delivery until its release, or until there is room in this line."""
        progress = delivery.progress
        room = self.moves if progress.release_ms < progress.due_ms else self.attempts
        room.add((record, delivery), progress.release_ms, line)

    def called_up(self, line: str, at_most: int) -> Iterable[tuple[ConsumerRecord, Delivery]]:
        """Take out what waits for room in this line, at most so many."""
        for room in (self.attempts, self.moves):
            for held in room.called_up(line, at_most):
                at_most -= 1
                yield held

    def next_ms(self) -> int | None:
        """When the earliest is to be released; None while nobody waits."""
        moments = [moment for room in (self.attempts, self.moves) if (moment := room.next_ms()) is not None]
        return min(moments, default=None)

    def clear(self) -> None:
        """Forget everything."""
        self.attempts.clear()
        self.moves.clear()
