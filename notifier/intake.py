"""Takes deliveries from the bus: fresh ones from `tts.completed`, waiting ones from the retry tiers when due."""

import asyncio
import time
from collections.abc import Callable

from aiokafka import ConsumerRecord, TopicPartition

from infra import metrics as common_metrics
from infra.kafka.clients import BusProducer
from infra.kafka.dead_letters import send_dead_letter
from infra.kafka.work import WorkConsumer
from infra.lifecycle import Deadline
from notifier import metrics
from notifier.delivery import Delivery, UnreadableDeliveryError, read_delivery
from notifier.dispatch import Dispatcher, Errand
from notifier.settlement import STAGE
from notifier.waiting_room import WaitingRoom
from schemas.codes import ErrorCode
from schemas.topics import DELIVERY_RETRIES

_FETCH = 500
# How long a loop sleeps at most before it looks again for stop signals, room, and what is due.
_TICK_S = 0.2
_SHORTEST_TICK_S = 0.005


def now_ms() -> int:
    """Milliseconds since 1970, the clock of everything that waits on the bus."""
    return int(time.time() * 1000)


class DrainHooks:
    """On revoke: forget what waits, finish what runs."""

    def __init__(self, dispatcher: Dispatcher, forget: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._forget = forget

    async def drain(self, partitions: frozenset[TopicPartition], deadline: Deadline) -> None:
        """Finish what runs of these partitions until the deadline; what only waits comes again."""
        self._forget()
        await self._dispatcher.drain(partitions, deadline.remaining_s)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing to prepare."""


class Intake:
    """What both kinds of intake share: room, reading a record, and moving on what is not due."""

    def __init__(
        self, dispatcher: Dispatcher, producer: BusProducer, *, max_in_hand: int, first_delay_s: float = 0.0
    ) -> None:
        self._dispatcher = dispatcher
        self._producer = producer
        self._max_in_hand = max_in_hand
        self._first_delay_s = first_delay_s
        self._moves: set[asyncio.Task[None]] = set()

    def room(self) -> int:
        """How many more may be taken now."""
        return min(_FETCH, self._max_in_hand - self._dispatcher.in_hand - len(self._moves))

    async def read(self, work: WorkConsumer, record: ConsumerRecord) -> Delivery | None:
        """The delivery of a record; None when there is nothing to deliver, and the record is finished then."""
        try:
            delivery = read_delivery(record, self._first_delay_s)
        except UnreadableDeliveryError as error:
            topic = work.topic_of(record)
            await send_dead_letter(self._producer, record, ErrorCode.INTERNAL, str(error), stage=STAGE, topic=topic)
            delivery = None
        if delivery is None:
            work.finish(record)
        return delivery

    def go(self, work: WorkConsumer, record: ConsumerRecord, delivery: Delivery) -> None:
        """Attempt what is due; let the rest wait (further) on the bus."""

        def done() -> None:
            common_metrics.MESSAGES.labels(STAGE, work.topic_of(record), "finished").inc()
            work.finish(record)

        if delivery.progress.due_ms <= now_ms():
            self._dispatcher.submit(Errand(delivery, TopicPartition(record.topic, record.partition), done))
            return
        task = asyncio.create_task(self._move(delivery, done))
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _move(self, delivery: Delivery, done: Callable[[], None]) -> None:
        topic, message = delivery.waiting(now_ms(), delivery.progress.due_ms)
        await self._producer.deliver(topic, message)
        done()


async def take_fresh(work: WorkConsumer, intake: Intake) -> None:
    """Take completions and attempt them at once; runs until cancelled."""
    while True:
        room = intake.room()
        if room <= 0:
            await asyncio.sleep(_SHORTEST_TICK_S)
            continue
        for record in await work.fetch(max_records=room, timeout_s=_TICK_S):
            delivery = await intake.read(work, record)
            if delivery is not None:
                intake.go(work, record, delivery)


class RetryWaiting:
    """Holds the read part of every tier until it is due, and stops reading a tier whose part is full."""

    def __init__(self, *, max_held: int) -> None:
        """`max_held`: deliveries held of one tier; a fetch may go past it once."""
        self._max_held = max_held
        self._rooms: dict[str, WaitingRoom[tuple[ConsumerRecord, Delivery]]] = {
            topic: WaitingRoom() for topic in DELIVERY_RETRIES
        }
        self._paused: set[str] = set()

    def forget(self) -> None:
        """Everything held will be read again."""
        for room in self._rooms.values():
            room.clear()
        self._paused.clear()

    async def run(self, work: WorkConsumer, intake: Intake) -> None:
        """Read, hold, release; runs until cancelled."""
        while True:
            for record in await work.fetch(max_records=_FETCH, timeout_s=self._tick_s()):
                delivery = await intake.read(work, record)
                if delivery is not None:
                    self._rooms[work.topic_of(record)].add((record, delivery), delivery.progress.release_ms)
            for room in self._rooms.values():
                for record, delivery in room.released(now_ms(), max(0, intake.room())):
                    intake.go(work, record, delivery)
            self._balance(work)
            for topic, room in self._rooms.items():
                metrics.WAITING.labels(topic.rpartition(".")[2]).set(len(room))

    def _tick_s(self) -> float:
        moments = [moment for room in self._rooms.values() if (moment := room.next_ms()) is not None]
        if not moments:
            return _TICK_S
        return min(_TICK_S, max(_SHORTEST_TICK_S, (min(moments) - now_ms()) / 1000))

    def _balance(self, work: WorkConsumer) -> None:
        full = {topic for topic, room in self._rooms.items() if len(room) >= self._max_held}
        empty = {topic for topic in self._paused if len(self._rooms[topic]) <= self._max_held // 2}
        if full - self._paused:
            work.pause(full - self._paused)
        if empty:
            work.resume(empty)
        self._paused = (self._paused | full) - empty
