"""Events in hand, acknowledged strictly in the order of their partition.

Faust commits what was acknowledged out of order as if nothing were open before it (`Consumer._new_offset` compares
with the committed offset one too generously, and not at all on a partition never committed). So an event is
acknowledged only when all before it in its partition are finished.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol


class Acknowledgeable(Protocol):
    """What the ledger needs of a Faust event."""

    def ack(self) -> bool:
        """Mark the event as finished."""


@dataclass(slots=True, eq=False)
class Entry:
    """One event in hand."""

    partition: Hashable
    event: Acknowledgeable
    finished: bool = False


@dataclass(slots=True)
class Ledger:
    """All events in hand, bounded."""

    limit: int
    _open: dict[Hashable, deque[Entry]] = field(default_factory=dict)
    _in_flight: int = 0
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._room.set()

    @property
    def in_flight(self) -> int:
        """Events begun and not acknowledged."""
        return self._in_flight

    async def room(self) -> None:
        """Return when one more event may be begun."""
        await self._room.wait()

    def begin(self, partition: Hashable, event: Acknowledgeable) -> Entry:
        """Take an event in hand; events of a partition are begun in their order."""
        entry = Entry(partition, event)
        self._open.setdefault(partition, deque()).append(entry)
        self._in_flight += 1
        if self._in_flight >= self.limit:
            self._room.clear()
        return entry

    def finish(self, entry: Entry) -> None:
        """All that follows from an event is confirmed; it and its finished followers are acknowledged."""
        entry.finished = True
        waiting = self._open[entry.partition]
        while waiting and waiting[0].finished:
            waiting.popleft().event.ack()
            self._in_flight -= 1
        if self._in_flight < self.limit:
            self._room.set()
