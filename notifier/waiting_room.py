"""Deliveries of one retry tier that were read before they are due. Pure but for holding them.

What waits stays uncommitted on its topic; this is only the window that has been read, and its size is bounded, so
losing it loses nothing.
"""

import heapq
from collections.abc import Iterable
from itertools import count
from typing import Generic, TypeVar

from aiokafka import ConsumerRecord

from notifier.delivery import Delivery

T = TypeVar("T")


class WaitingRoom(Generic[T]):
    """Gives things back when their time has come, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._arrival = count()  # ties go by arrival; the things themselves need no order

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, thing: T, release_ms: int) -> None:
        """Let a thing wait until a moment, in milliseconds since 1970."""
        heapq.heappush(self._heap, (release_ms, next(self._arrival), thing))

    def next_ms(self) -> int | None:
        """When the earliest is to be released; None while nobody waits."""
        return self._heap[0][0] if self._heap else None

    def released(self, now_ms: int, at_most: int) -> Iterable[T]:
        """Take out what is due, at most so many."""
        while at_most > 0 and self._heap and self._heap[0][0] <= now_ms:
            at_most -= 1
            yield heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        """Forget everybody."""
        self._heap.clear()


class Tier:
    """The read part of one tier: what will be attempted from here, and what moves on to another tier."""

    def __init__(self) -> None:
        self.attempts: WaitingRoom[tuple[ConsumerRecord, Delivery]] = WaitingRoom()
        self.moves: WaitingRoom[tuple[ConsumerRecord, Delivery]] = WaitingRoom()

    def __len__(self) -> int:
        return len(self.attempts) + len(self.moves)

    def add(self, record: ConsumerRecord, delivery: Delivery) -> None:
        """Hold a delivery until its release."""
        progress = delivery.progress
        room = self.moves if progress.release_ms < progress.due_ms else self.attempts
        room.add((record, delivery), progress.release_ms)

    def next_ms(self) -> int | None:
        """When the earliest is to be released; None while nobody waits."""
        moments = [moment for room in (self.attempts, self.moves) if (moment := room.next_ms()) is not None]
        return min(moments, default=None)

    def clear(self) -> None:
        """Forget everything."""
        self.attempts.clear()
        self.moves.clear()
