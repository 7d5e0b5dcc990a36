"""What is published of a delivery that goes back without an attempt, and of an endpoint that is disabled."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from notifier import settlement as module
from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.directory import Directory
from notifier.errand import Errand, Return
from notifier.ledger import Ledger, Verdict
from notifier.named_endpoint import NamedEndpoint
from notifier.retry import RetryPolicy
from notifier.settlement import BusSettlement
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Message
from schemas.deliveries import DeliveryAttempted, DeliveryProgress, DeliveryState
from schemas.endpoints import EndpointChanged

HERE = TopicPartition("t", 0)


def now_ms() -> int:
    """When it is asked: collected early, a module may run many minutes later."""
    return int(utc_now().timestamp() * 1000)


def progress_of(message: Message) -> DeliveryProgress:
    """How far the delivery of a waiting record is."""
    return DeliveryProgress.model_validate_json(dict(message.headers)["ce_delivery"])


@dataclass
class Producer:
    """Takes messages; fails as often as told first."""

    failures: int = 0
    taken: list[tuple[str, Message]] = field(default_factory=list)

    async def send(self, topic: str, message: Message) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        if self.failures:
            self.failures -= 1
            raise KafkaConnectionError
        self.taken.append((topic, message))
        return future

    async def all_acked(self, futures: list[asyncio.Future[None]]) -> None:
        await asyncio.gather(*futures)


@dataclass
class World:
    producer: Producer = field(default_factory=Producer)
    ledger: Ledger = field(default_factory=Ledger)
    directory: Directory = field(default_factory=lambda: Directory({"crm": NamedEndpoint(url="https://a.example/")}))
    done: list[str] = field(default_factory=list)

    @property
    def settlement(self) -> BusSettlement:
        producer: Any = self.producer
        return BusSettlement(producer, RetryPolicy((0.0, 5.0)), self.ledger, self.directory, give_up_after_s=100)

    def errand(self, name: str, *, age_s: int = 0) -> Errand:
        now = now_ms()
        progress = DeliveryProgress(
            attempts=0, due_ms=now, release_ms=now, first_ms=now - age_s * 1000, partition=0, offset=7
        )
        delivery = Delivery(name, b"{}", "https://a.example/", (), None, progress, f"msg_{name}")
        return Errand(delivery, HERE, lambda: self.done.append(name))


async def test_what_is_put_off_waits_on_the_bus_and_may_be_begun_again() -> None:
    world = World(Producer())
    soon, late = world.errand("soon"), world.errand("late")
    for errand in (soon, late):
        world.ledger.begin(errand.delivery.id, 1)
    await world.settlement.give_back([Return(soon, now_ms() + 2_000, True), Return(late, now_ms() + 60_000, True)])
    assert [topic for topic, _ in world.producer.taken] == [topics.DELIVERY_RETRIES[0], topics.DELIVERY_RETRIES[2]]
    assert world.done == ["soon", "late"]
    assert world.ledger.begin(soon.delivery.id, 1) is Verdict.ATTEMPT


async def test_what_waits_for_room_says_so_until_it_is_attempted() -> None:
    world, due = World(), now_ms() + 2_000
    waits, timed = world.errand("waits"), world.errand("timed")
    await world.settlement.give_back([Return(waits, due, True, for_room=True), Return(timed, due, True)])
    told = [progress_of(message) for _topic, message in world.producer.taken]
    assert [progress.for_room for progress in told] == [True, False]
    world.producer.taken.clear()
    begun = Errand(replace(waits.delivery, progress=told[0]), HERE, lambda: None)
    await world.settlement.settle(begun, "a.example:443", AttemptResult(Answer.SERVER_ERROR, status=500))
    after = progress_of(world.producer.taken[0][1])
    assert (after.attempts, after.for_room) == (1, False)


async def test_a_copy_that_moves_on_leaves_the_one_in_hand_alone() -> None:
    world = World()
    copy = world.errand("r", age_s=10_000)
    world.ledger.begin(copy.delivery.id, 1)
    await world.settlement.give_back([Return(copy, now_ms() + 1_000, False)])
    assert world.ledger.begin(copy.delivery.id, 1) is Verdict.LATER
    assert [topic for topic, _ in world.producer.taken] == [topics.DELIVERY_RETRIES[0]]


async def test_put_off_past_the_whole_schedule_it_ends_and_the_rest_of_its_batch_goes_on() -> None:
    world = World()
    await world.settlement.give_back(
        [Return(world.errand("old", age_s=101), now_ms(), True), Return(world.errand("new"), now_ms(), True)]
    )
    assert world.done == ["new", "old"]
    by_topic = dict(world.producer.taken)
    assert by_topic.keys() == {topics.DELIVERY_RETRIES[0], topics.DEAD_LETTERS, topics.DELIVERIES}
    event = DeliveryAttempted.model_validate_json(by_topic[topics.DELIVERIES].value or b"")
    assert (event.request_id, event.state) == ("old", DeliveryState.DEAD_LETTERED)


async def test_a_batch_that_the_bus_did_not_take_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    world = World(Producer(failures=2))
    with capture_logs() as lines:
        await world.settlement.give_back([Return(world.errand("r"), now_ms(), True)])
    assert world.done == ["r"]
    assert [line["event"] for line in lines] == ["bus does not take messages"] * 2


async def test_an_endpoint_that_is_disabled_is_named_with_what_to_do() -> None:
    world = World()
    errand = world.errand("r")
    errand = replace(errand, delivery=errand.delivery.to("crm"))
    gone = AttemptResult(Answer.GONE, status=410, error="HTTP status 410")
    with capture_logs() as lines:
        await world.settlement.settle(errand, "a.example:443", gone)
    (line,) = (line for line in lines if line["event"] == "endpoint disabled")
    assert line["log_level"] == "error"
    assert (line["endpoint"], line["next_step"]) == ("crm", "voxbus webhooks enable crm")
    assert "410" in line["reason"]
    (message,) = (message for topic, message in world.producer.taken if topic == topics.ENDPOINTS)
    assert EndpointChanged.model_validate_json(message.value or b"").disabled
