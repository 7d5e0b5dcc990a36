"""Takes deliveries from the bus: fresh ones from `tts.completed`, waiting ones from the retry tiers when due."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from infra import metrics as common_metrics
from infra.errors import UserError
from infra.kafka.clients import BusProducer
from infra.kafka.dead_letters import send_dead_letter
from infra.kafka.work import WorkConsumer
from infra.lifecycle import Deadline
from infra.logging import get_logger
from notifier import metrics
from notifier.delivery import Delivery, UnreadableDeliveryError, read_delivery
from notifier.delivery_log import DeliveryTail
from notifier.directory import Directory
from notifier.dispatch import Dispatcher
from notifier.errand import Errand
from notifier.ledger import Ledger, Verdict
from notifier.settlement import STAGE
from notifier.waiting_room import Tier
from schemas.codes import ErrorCode
from schemas.topics import COMPLETED, DELIVERY_RETRIES

_FETCH = 500
# A loop that has so much to read gives way to the others after this long; a probe's attempt has a dozen steps.
_TURN_S = 0.003
# So many may be going back to the bus before more is moved from tier to tier.
_MAX_GOING_BACK = 500
# Until it is looked at again whether another copy of a delivery has come to an end.
_LATER_MS = 1_000
# How long a loop sleeps at most before it looks again for stop signals, room, and what is due.
_TICK_S = 0.2
_SHORTEST_TICK_S = 0.005
# Thousands of endpoints may have deliveries waiting for their room: asked no more often than this.
_CALL_UP_S = 0.1
# Reading the end of the delivery log, while the group waits.
_TAIL_S = 10.0

_log = get_logger(__name__)


def now_ms() -> int:
    """Milliseconds since 1970, the clock of everything that waits on the bus."""
    return int(time.time() * 1000)


class GroupHooks:
    """On revoke: forget what waits, finish what runs. On assignment: learn what others have settled."""

    def __init__(self, dispatcher: Dispatcher, ledger: Ledger, tail: DeliveryTail, forget: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._tail = tail
        self._forget = forget
        self._informed = asyncio.Event()

    async def informed(self) -> None:
        """Wait until what others settled is known: records of a new assignment may be read before that."""
        await self._informed.wait()

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        """Finish what runs of these partitions until the deadline; what only waits comes again."""
        self._informed.clear()
        self._forget()
        for errand in await self._dispatcher.drain(partitions, deadline.remaining_s):
            self._ledger.release(errand.delivery.id, errand.delivery.attempt)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Read the end of the delivery log: a member that died may have settled more than it committed."""
        if partitions:
            try:
                async with asyncio.timeout(_TAIL_S):
                    self._ledger.recall(await self._tail.read())
            except (KafkaError, UserError, TimeoutError) as error:
                # Not knowing costs repeated attempts, which receivers know by their id; waiting would cost more.
                _log.warning("end of the delivery log not read", error=type(error).__name__)
        self._informed.set()


class Intake:
    """What both kinds of intake share: room, reading a record, and moving on what is not due."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        producer: BusProducer,
        ledger: Ledger,
        directory: Directory,
        *,
        max_in_hand: int,
        first_delay_s: float = 0.0,
    ) -> None:
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._directory = directory
        self._producer = producer
        self._max_in_hand = max_in_hand
        self._first_delay_s = first_delay_s

    def room(self) -> int:
        """How many more may be taken now."""
        left = self._max_in_hand - self._dispatcher.in_hand
        return min(_FETCH, left // (1 + len(self._directory)))

    def room_to_move(self) -> int:
        """How many may be moved on now that are not due: none while there is much to move."""
        return min(self.room(), max(0, _MAX_GOING_BACK - self._dispatcher.going_back))

    async def read(self, work: WorkConsumer, record: ConsumerRecord) -> list[Delivery]:
        """The deliveries of a record; when there are none, the record is finished.

        A completion may have several, to its callback and to named endpoints; one that waits is one.
        """
        fresh = work.topic_of(record) == COMPLETED and len(self._directory) > 0
        try:
            delivery = read_delivery(record, self._first_delay_s, without_callback=fresh)
        except UnreadableDeliveryError as error:
            topic = work.topic_of(record)
            await send_dead_letter(self._producer, record, ErrorCode.INTERNAL, str(error), stage=STAGE, topic=topic)
            delivery = None
        deliveries: list[Delivery] = []
        if delivery is not None:
            names = self._directory.names_for(delivery.event_type) if fresh else []
            deliveries = delivery.to_each(names) if fresh else [delivery]
        if not deliveries:
            work.finish(record)
        return deliveries

    def line_of(self, delivery: Delivery) -> str | None:
        """Whose room a delivery waits for; None when it waits for its time."""
        return self._dispatcher.line_of(delivery)

    def wanted(self, line: str) -> int:
        """How many of those that wait for room in this line may be taken now."""
        return min(self.room(), self._dispatcher.wanted(line))

    def go(
        self, work: WorkConsumer, record: ConsumerRecord, deliveries: list[Delivery], *, has_room: bool = False
    ) -> None:
        """Attempt what is due, or what waited for room and has it; let the rest wait (further) on the bus.

        The record ends with the last of them.
        """
        open_ones = len(deliveries)

        def done() -> None:
            nonlocal open_ones
            open_ones -= 1
            if open_ones == 0:
                common_metrics.MESSAGES.labels(STAGE, work.topic_of(record), "finished").inc()
                work.finish(record)

        for delivery in deliveries:
            errand = Errand(delivery, TopicPartition(record.topic, record.partition), done)
            due_ms = delivery.progress.due_ms
            if due_ms > now_ms() and not has_room:
                self._dispatcher.move_on(errand, due_ms, for_room=delivery.progress.for_room)
            else:
                self._attempt(errand)

    def _attempt(self, errand: Errand) -> None:
        delivery = errand.delivery
        match self._ledger.begin(delivery.id, delivery.attempt):
            case Verdict.ATTEMPT:
                self._dispatcher.submit(errand)
            case Verdict.NOTHING:
                metrics.REPEATED.inc()
                errand.done()
            case Verdict.LATER:
                self._dispatcher.move_on(errand, now_ms() + _LATER_MS)


async def take_fresh(work: WorkConsumer, intake: Intake, hooks: GroupHooks) -> None:
    """Take completions and attempt them at once; runs until cancelled."""
    while True:
        room = intake.room()
        if room <= 0:
            await asyncio.sleep(_SHORTEST_TICK_S)
            continue
        records = await work.fetch(max_records=room, timeout_s=_TICK_S)
        async for record in _in_turns(records, hooks):
            deliveries = await intake.read(work, record)
            if deliveries and work.holds(record):
                intake.go(work, record, deliveries)


async def _in_turns(records: Iterable[ConsumerRecord], hooks: GroupHooks) -> AsyncIterator[ConsumerRecord]:
    """Records one by one, letting others run in between: attempts go on while a burst is read."""
    turn_ends = 0.0
    for record in records:
        if time.monotonic() >= turn_ends:
            await asyncio.sleep(0)
            # Partitions may have come anew meanwhile, with what others settled of them.
            await hooks.informed()
            turn_ends = time.monotonic() + _TURN_S
        yield record


class RetryWaiting:
    """Holds the read part of every tier until it is due, and stops reading a tier whose part is full."""

    def __init__(self, *, max_held: int) -> None:
        """`max_held`: deliveries held of one tier; a fetch may go past it once."""
        self._max_held = max_held
        self._tiers = {topic: Tier() for topic in DELIVERY_RETRIES}
        self._paused: set[str] = set()
        self._call_up_at = 0.0

    def forget(self) -> None:
        """Everything held will be read again."""
        for tier in self._tiers.values():
            tier.clear()
        self._paused.clear()

    async def run(self, work: WorkConsumer, intake: Intake, hooks: GroupHooks) -> None:
        """Read, hold, release; runs until cancelled."""
        while True:
            records = await work.fetch(max_records=_FETCH, timeout_s=self._tick_s())
            async for record in _in_turns(records, hooks):
                for delivery in await intake.read(work, record):
                    if work.holds(record):
                        self._tiers[work.topic_of(record)].add(record, delivery, intake.line_of(delivery))
            await hooks.informed()
            self._call_up(work, intake)
            for tier in self._tiers.values():
                for record, delivery in tier.attempts.released(now_ms(), max(0, intake.room())):
                    intake.go(work, record, [delivery])
                for record, delivery in tier.moves.released(now_ms(), max(0, intake.room_to_move())):
                    intake.go(work, record, [delivery])
            self._balance(work)
            for topic, tier in self._tiers.items():
                metrics.WAITING.labels(topic.rpartition(".")[2]).set(len(tier))

    def _call_up(self, work: WorkConsumer, intake: Intake) -> None:
        """Take what waits for room of endpoints that have it, the soonest due first, so that none is idle."""
        if time.monotonic() < self._call_up_at:
            return
        self._call_up_at = time.monotonic() + _CALL_UP_S
        for tier in self._tiers.values():
            for line in tier.lines:
                for record, delivery in tier.called_up(line, intake.wanted(line)):
                    intake.go(work, record, [delivery], has_room=True)

    def _tick_s(self) -> float:
        moments = [moment for tier in self._tiers.values() if (moment := tier.next_ms()) is not None]
        if not moments:
            return _TICK_S
        return min(_TICK_S, max(_SHORTEST_TICK_S, (min(moments) - now_ms()) / 1000))

    def _balance(self, work: WorkConsumer) -> None:
        full = {topic for topic, tier in self._tiers.items() if len(tier) >= self._max_held}
        empty = {topic for topic in self._paused if len(self._tiers[topic]) <= self._max_held // 2}
        if full - self._paused:
            work.pause(full - self._paused)
        if empty:
            work.resume(empty)
        self._paused = (self._paused | full) - empty
