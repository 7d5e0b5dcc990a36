"""A member of a consumer group whose offsets move only past finished work.

Every record handed out is finished later, in any order; what is committed is the contiguous low-watermark of each
partition. On revoke the owner of the work drains within one deadline, the watermark is committed, and the
partitions are let go.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from infra import metrics
from infra.kafka.clients import new_consumer, plain_topic, start_client, stop_consumer
from infra.kafka.watermark import WatermarkBook
from infra.lifecycle import Deadline
from infra.logging import get_logger
from infra.settings import KafkaSettings

_log = get_logger(__name__)

_NOWHERE = TopicPartition("", -1)


class AssignmentHooks(Protocol):
    """What the owner of the work does when partitions come and go. Records of lost partitions may come again."""

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        """Finish what can be finished of these partitions until the deadline; new work is not handed out meanwhile."""

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions are held from now on; reading begins at the committed offsets."""


class NoHooks:
    """For stages whose work is short: nothing to drain, nothing to prepare."""

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        """Nothing to wait for."""

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing to prepare."""


class WorkConsumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Hands out records and commits behind the work. Make one with `work_consumer`."""

    def __init__(
        self, consumer: AIOKafkaConsumer, settings: KafkaSettings, *, stage: str, hooks: AssignmentHooks, drain_s: float
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._stage = stage
        self._hooks = hooks
        self._drain_s = drain_s
        self._book: WatermarkBook[TopicPartition] = WatermarkBook()
        self._held: frozenset[TopicPartition] = frozenset()
        self._assigned = asyncio.Event()
        self._commit_lock = asyncio.Lock()

    async def fetch(
        self, *, max_records: int, timeout_s: float = 0.2, topics: Collection[str] | None = None
    ) -> list[ConsumerRecord]:
        """The next records of all partitions that are not paused; possibly none.

        Call it again and again even when nothing more can be taken: a member that stops asking is put out of its
        group. Leaving topics out keeps what was already fetched of them; pausing them throws it away.

        Args:
            max_records: bound of the answer.
            timeout_s: how long to wait for the first one. Longer while the group is being rebalanced.
            topics: names without namespace; None for all, empty to be only seen alive.
        """
        wanted: Collection[TopicPartition] = ()
        if topics is not None:
            # No partition means all partitions to the client, so asking for none names one that does not exist.
            wanted = self._partitions_of(topics) or (_NOWHERE,)
        batches = await self._consumer.getmany(*wanted, timeout_ms=int(timeout_s * 1000), max_records=max_records)
        handed_out = [r for partition, records in batches.items() for r in self._hand_out(partition, records)]
        metrics.IN_FLIGHT.labels(self._stage).set(self._book.in_flight())
        return handed_out

    def _hand_out(self, partition: TopicPartition, records: list[ConsumerRecord]) -> list[ConsumerRecord]:
        if partition not in self._held:
            # Just assigned, and read before `on_partitions_assigned` ran: they must be read again, not skipped.
            with suppress(IllegalStateError):
                self._consumer.seek(partition, records[0].offset)
            return []
        if self._book.start_all(partition, [record.offset for record in records]):
            return records
        # Only a log that began anew (topic made again, offsets out of range) hands out what was handed out before.
        _log.warning("the log of a partition began anew", topic=partition.topic, partition=partition.partition)
        self._book.assign(partition)
        self._book.start_all(partition, [record.offset for record in records])
        return records

    def finish(self, record: ConsumerRecord) -> None:
        """The work a record stood for is done, and all that follows from it is durable."""
        self._book.finish(TopicPartition(record.topic, record.partition), record.offset)

    def holds(self, record: ConsumerRecord) -> bool:
        """Whether the partition of the record is still ours."""
        return TopicPartition(record.topic, record.partition) in self._held

    @property
    def held(self) -> frozenset[TopicPartition]:
        """Partitions held now."""
        return self._held

    @property
    def is_assigned(self) -> bool:
        """Whether the group has settled for this member; False from a revoke to the next assignment."""
        return self._assigned.is_set()

    @property
    def in_flight(self) -> int:
        """Records handed out and not finished."""
        return self._book.in_flight()

    def pause(self, topics: Collection[str] | None = None) -> None:
        """Stop handing out records of these topics (names without namespace; None: all)."""
        self._consumer.pause(*self._partitions_of(topics))

    def resume(self, topics: Collection[str] | None = None) -> None:
        """Hand out records of these topics again."""
        self._consumer.resume(*self._partitions_of(topics))

    def topic_of(self, record: ConsumerRecord) -> str:
        """The topic of a record without the namespace."""
        return plain_topic(self._settings, record)

    async def commit(self) -> None:
        """Commit the watermarks that moved. A commit that a rebalance overtook is dropped: its records come again."""
        async with self._commit_lock:
            positions = self._book.uncommitted()
            if not positions:
                return
            try:
                await self._consumer.commit(positions)
            except (CommitFailedError, IllegalStateError):
                metrics.COMMITTED.labels(self._stage, "overtaken").inc()
                return
            except KafkaError as error:
                # The next round tries again with positions at least as far.
                metrics.COMMITTED.labels(self._stage, "failed").inc()
                _log.warning("offsets not committed", error=type(error).__name__)
                return
            self._book.committed(positions)
            metrics.COMMITTED.labels(self._stage, "done").inc()

    async def commit_every(self, seconds: float) -> None:
        """Commit again and again; run it as a background task."""
        while True:
            await asyncio.sleep(seconds)
            await self.commit()

    async def wait_assigned(self) -> None:
        """Return once the group has given this member its partitions (possibly none)."""
        await self._assigned.wait()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called by aiokafka before each rebalance; heartbeats go on meanwhile."""
        partitions = frozenset(revoked)
        if partitions:
            await self._hooks.drain(partitions, Deadline(self._drain_s))
            await self.commit()
        for partition in partitions:
            self._book.lose(partition)
        self._held = frozenset()
        self._assigned.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by aiokafka after each rebalance, before reading goes on."""
        self._held = frozenset(assigned)
        for partition in self._held:
            self._book.assign(partition)
        # Set first: a hook that reports readiness asks for it.
        self._assigned.set()
        await self._hooks.assigned(self._held)

    def _partitions_of(self, topics: Collection[str] | None) -> list[TopicPartition]:
        if topics is None:
            return list(self._held)
        names = {self._settings.namespace + topic for topic in topics}
        return [partition for partition in self._held if partition.topic in names]


@asynccontextmanager
async def work_consumer(
    settings: KafkaSettings,
    *,
    topics: Collection[str],
    group: str,
    stage: str,
    hooks: AssignmentHooks | None = None,
    drain_s: float = 10.0,
    commit_every_s: float = 0.5,
    prefetch_bytes: int | None = None,
) -> AsyncIterator[WorkConsumer]:
    """A member of `group` on `topics`, committing as work finishes; on leaving it drains, commits and says goodbye.

    The group settles in its own time: `wait_assigned`, or the first `fetch`, waits for it.

    Args:
        settings: how to reach the bus.
        topics: names without namespace.
        group: name without namespace.
        stage: for metrics.
        hooks: what happens when partitions come and go.
        drain_s: budget of one drain, below the group's `rebalance_timeout_ms`.
        commit_every_s: how often finished work is committed.
        prefetch_bytes: bound of what is fetched ahead of one partition; the client's 1 MiB when None.

    Raises:
        ServerUnavailableError: the bus does not answer.
    """
    consumer = new_consumer(settings, group=group, client_id=f"voxbus-{stage}", prefetch_bytes=prefetch_bytes)
    hooks = hooks or NoHooks()
    work = WorkConsumer(consumer, settings, stage=stage, hooks=hooks, drain_s=drain_s)
    committing: asyncio.Task[None] | None = None
    try:
        await start_client(consumer, settings)
        # Only now: a start with a subscription waits for the group to settle, which takes as long as its slowest
        # member drains, and would be taken for a bus that does not answer.
        consumer.subscribe([settings.namespace + topic for topic in topics], listener=work)
        committing = asyncio.create_task(work.commit_every(commit_every_s))
        yield work
    finally:
        if committing is not None:
            await hooks.drain(work.held, Deadline(drain_s))
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            await work.commit()
        await stop_consumer(consumer)
