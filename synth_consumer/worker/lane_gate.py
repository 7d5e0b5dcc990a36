"""Admission to the lanes of one engine: so many at once, or one suspect alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LaneGate:
    """Counts the takes in the engine. Closed while there is no engine.

    A take that wants to be alone waits until the lanes are empty and keeps all others out meanwhile: a suspect must
    not wait for ever behind a stream of new takes.
    """

    def __init__(self) -> None:
        self._lanes = 0
        self._busy = 0
        self._alone = False  # the take inside wants no company
        self._waiting_alone = 0
        self._changed = asyncio.Event()

    @property
    def busy(self) -> int:
        """Takes inside."""
        return self._busy

    @property
    def lanes(self) -> int:
        """As many as the engine has now; 0 while there is none."""
        return self._lanes

    def open(self, lanes: int) -> None:
        """An engine with this many lanes is there, or it has so many from now on; those inside stay."""
        self._lanes = lanes
        self._tell()

    def close(self) -> None:
        """The engine is gone; those inside leave on their own, nobody enters."""
        self._lanes = 0

    @asynccontextmanager
    async def lane(self, *, alone: bool) -> AsyncIterator[None]:
        """Hold a lane while the block runs."""
        await self._enter(alone)
        try:
            yield
        finally:
            self._busy -= 1
            self._alone = False
            self._tell()

    async def _enter(self, alone: bool) -> None:
        self._waiting_alone += alone
        try:
            while not self._admits(alone):
                await self._changed.wait()
            self._busy += 1
            self._alone = alone
        finally:
            self._waiting_alone -= alone
            self._tell()

    def _admits(self, alone: bool) -> bool:
        if self._lanes == 0 or self._alone:
            return False
        if alone:
            return self._busy == 0
        return self._busy < self._lanes and self._waiting_alone == 0

    def _tell(self) -> None:
        # Everyone who waits looks again; whoever waits after that waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
