"""Ends that were told before anybody listened: a request whose id is known already changes nothing, and ends no second
time, so its end is looked for in the log."""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from ulid import ULID

from infra.errors import UserError
from producers.bus import Bus
from producers.replies import Completions
from schemas import topics

# Seconds. Most ends of a running request come by listening; what is looked for together costs one reading of the log.
_AFTER_S = 1.0


def may_be_known(request_id: str, since: datetime) -> bool:
    """Whether somebody may have used an id before; false for a ULID that was made since then."""
    try:
        return ULID.from_str(request_id).datetime < since
    except ValueError:
        return True


class Recall:
    """Looks once for the end of each request it is told of. At most one reading of the log goes on."""

    def __init__(self, bus: Bus, completions: Completions) -> None:
        self._bus = bus
        self._completions = completions
        self._wanted: set[bytes] = set()
        self._task: asyncio.Task[None] | None = None

    def look_for(self, request_ids: Iterable[str]) -> None:
        """Soon; returns at once."""
        self._wanted.update(request_id.encode() for request_id in request_ids)
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._look(), name="recall")

    async def close(self) -> None:
        """Look no further."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while self._wanted:
            await asyncio.sleep(_AFTER_S)
            keys = frozenset(key for key in self._wanted if self._completions.waits_for(key))
            self._wanted.clear()
            if not keys:
                continue
            try:
                async for key, value in self._bus.past(topics.COMPLETED, keys):
                    self._completions.on_record(key, value)
            except UserError:
                # Whoever listens hears by themselves that the bus is gone.
                continue
