"""What goes back to the bus without an attempt: in batches, and in no hurry while there is room for more.

A burst for a host that hangs comes back by the thousand: put off, moved to the next tier, put off again. None of it is
urgent, and each by itself would cost a task, a wait for the producer's buffer and a small batch on the broker, all of
it in the way of those whose attempt is due now.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence

from aiokafka import TopicPartition

from notifier.errand import Return

# About 10 ms of the event loop.
_BATCH = 100
# Between two batches: at least this, so that single ones gather, and so many times as long as the last one took.
_REST_S = 0.1
_REST_TIMES = 2.0


class Returns:
    """The queue of what goes back. Empty, it costs nothing: its task ends with it."""

    def __init__(
        self,
        give_back: Callable[[Sequence[Return]], Awaitable[None]],
        failed: Callable[[BaseException], None],
        *,
        hurry_at: int,
    ) -> None:
        """Wire it.

        Args:
            give_back: makes a batch durable, and calls its errands done.
            failed: is told when that raised; nothing goes back any more then.
            hurry_at: with so many waiting it does not rest, so that they do not keep others from being taken in hand.
        """
        self._give_back = give_back
        self._failed = failed
        self._hurry_at = hurry_at
        self._waiting: deque[Return] = deque()
        self._under_way: Sequence[Return] = ()
        self._batch: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def add(self, one: Return) -> None:
        """Let one go back."""
        self._waiting.append(one)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def take_out(self, partitions: Collection[TopicPartition]) -> list[Return]:
        """Forget those of these partitions that are not on their way yet."""
        out = [one for one in self._waiting if one.errand.partition in partitions]
        if out:
            self._waiting = deque(one for one in self._waiting if one.errand.partition not in partitions)
        return out

    def under_way(self, partitions: Collection[TopicPartition]) -> asyncio.Future[None] | None:
        """Done when the batch that is being published is durable; None when nothing of these partitions is in it."""
        return self._batch if any(one.errand.partition in partitions for one in self._under_way) else None

    async def close(self) -> None:
        """Give up; what is not on the bus by now comes again from where it was read."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            began = time.monotonic()
            self._under_way = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._batch = asyncio.ensure_future(self._give_back(self._under_way))
            await self._batch
            self._under_way = ()
            if len(self._waiting) < self._hurry_at:
                await asyncio.sleep(max(_REST_S, _REST_TIMES * (time.monotonic() - began)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._failed(error)
        elif self._waiting:  # came as it ended
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._ended)
