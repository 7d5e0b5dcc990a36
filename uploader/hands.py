"""The work in hand: several takes and transcodes at once, bounded, one at a time for each fingerprint."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakValueDictionary

from aiokafka import TopicPartition

from infra.lifecycle import Deadline
from infra.logging import get_logger

_log = get_logger(__name__)


class Hands:
    """Tasks by the partition they belong to. On revoke they may finish until the deadline, then they are cancelled.

    Also the hooks of the work consumer: `forget` is called once nothing of lost partitions is in hand.
    """

    def __init__(self, concurrency: int) -> None:
        self._tasks: dict[asyncio.Task[None], TopicPartition] = {}
        self._turns = asyncio.Semaphore(concurrency)
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None
        self._fingerprints: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.forget: Callable[[frozenset[TopicPartition]], None] = lambda partitions: None
        self.begin: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """Tasks that wait for their turn or run."""
        return len(self._tasks)

    def take_up(self, partition: TopicPartition, fingerprint: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a piece of work as soon as it is its turn."""
        task = asyncio.create_task(self._in_turn(fingerprint, work))
        self._tasks[task] = partition
        task.add_done_callback(self._let_go)

    async def failure(self) -> None:
        """Wait for a piece of work that fails; a background task.

        Its records stay unfinished and its take in hand, so nothing of its partition would ever be committed again.
        The process has to end: whoever starts it anew lets it read them once more.

        Raises:
            BaseException: what the work failed with.
        """
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        """Let the work of these partitions finish until the deadline, then cancel what is left."""
        tasks = {task for task, partition in self._tasks.items() if partition in partitions}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline.remaining_s)
            for task in late:
                task.cancel()
            if late:
                _log.info("work let go unfinished; it comes again", tasks=len(late))
                await asyncio.wait(late)
        self.forget(partitions)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Reading begins anew at the committed offsets."""
        self.begin()

    async def _in_turn(self, fingerprint: str, work: Coroutine[Any, Any, None]) -> None:
        lock = self._fingerprints.setdefault(fingerprint, asyncio.Lock())
        try:
            async with lock, self._turns:
                await work
        finally:
            work.close()  # cancelled before its turn, it would complain that nobody awaited it

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work failed; its records come again after a restart", exc_info=error)
            self._failure = error
            self._failed.set()
