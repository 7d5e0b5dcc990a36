"""One endpoint that hangs costs the others nothing, and nothing is forgotten on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiokafka import TopicPartition

from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.directory import Directory
from notifier.dispatch import Dispatcher
from notifier.endpoint import EndpointLimits
from notifier.errand import Errand, Return
from notifier.named_endpoint import NamedEndpoint
from notifier.route import Router
from notifier.settings import NotifierSettings
from notifier.targets import Target
from schemas.base import utc_now
from schemas.deliveries import DeliveryProgress
from schemas.endpoints import EndpointChanged
from tests.waiting import eventually

PROGRESS = DeliveryProgress(attempts=0, due_ms=0, release_ms=0, first_ms=0, partition=0, offset=0)
HERE, THERE = TopicPartition("t", 0), TopicPartition("t", 1)
GOOD = AttemptResult(Answer.SUCCESS, status=204, latency_s=0.001)
NOW = utc_now()
DEAD = AttemptResult(Answer.TIMEOUT, latency_s=0.05)


def errand(name: str, host: str, partition: TopicPartition = HERE) -> Errand:
    delivery = Delivery(name, b"{}", f"https://{host}.example/", (), None, PROGRESS, f"msg_{name}")
    return Errand(delivery, partition, lambda: None)


@dataclass
class Book:
    """A settlement that writes down."""

    settled: dict[str, AttemptResult] = field(default_factory=dict)
    put_off_s: dict[str, float] = field(default_factory=dict)
    """From the beginning on."""
    returned: list[Return] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    async def settle(self, errand: Errand, endpoint: str, result: AttemptResult) -> None:
        self.settled[errand.delivery.request_id] = result

    async def give_back(self, batch: Sequence[Return]) -> None:
        self.returned += batch
        for one in batch:
            self.put_off_s[one.errand.delivery.request_id] = one.due_ms / 1000 - self.began


@dataclass
class World:
    """Hosts whose name begins with "slow" hang until let go; the rest answer at once."""

    answers: dict[str, AttemptResult] = field(default_factory=dict)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0

    async def send(self, _delivery: Delivery, target: Target) -> AttemptResult:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if target.host.startswith("slow"):
                await self.let_go.wait()
            else:
                await asyncio.sleep(0)
            return self.answers.get(target.host.removesuffix(".example"), GOOD)
        finally:
            self.running -= 1


@asynccontextmanager
async def dispatching(
    send: Callable[[Delivery, Target], Awaitable[AttemptResult]], book: Book, **settings: Any
) -> AsyncIterator[Dispatcher]:
    limits = EndpointLimits(max_window=16, breaker_failures=4, open_s=60, patience_s=0)
    dispatcher = Dispatcher(send, book, **({"route": Router(Directory({})).route, "limits": limits} | settings))
    try:
        yield dispatcher
    finally:
        await dispatcher.close()


async def test_a_healthy_host_does_not_wait_behind_a_hanging_one() -> None:
    world, book = World(), Book()
    async with dispatching(world.send, book, max_waiting=300) as dispatcher:
        for n in range(5_000):
            dispatcher.submit(errand(f"stuck-{n}", "slow"))
        for n in range(50):
            dispatcher.submit(errand(f"quick-{n}", "fast"))
        await eventually(lambda: len([name for name in book.settled if name.startswith("quick")]) == 50)
        # What the hanging host may hold is bounded; the rest went back to the bus, spaced, not all at one moment.
        assert dispatcher.in_hand - dispatcher.going_back <= 300
        await eventually(lambda: len(book.put_off_s) >= 4_700)
        # Where the machine pauses, the spacing begins again from the present: the same delay, at another moment.
        assert len(set(book.put_off_s.values())) > 0.9 * len(book.put_off_s)


async def test_many_hanging_hosts_leave_connections_for_others() -> None:
    world, book = World(), Book()
    async with dispatching(world.send, book, max_connections=400) as dispatcher:
        for host in range(40):
            for n in range(20):
                dispatcher.submit(errand(f"stuck-{host}-{n}", f"slow{host}"))
        dispatcher.submit(errand("quick", "fast"))
        await eventually(lambda: "quick" in book.settled)
        assert world.running == 40 * 8


async def test_the_bound_over_all_is_kept_and_shared_in_turns() -> None:
    world, book = World(), Book()
    async with dispatching(world.send, book, max_connections=10) as dispatcher:
        dispatcher.submit(errand("proof", "known"))
        await eventually(lambda: "proof" in book.settled)
        for n in range(40):
            dispatcher.submit(errand(f"r-{n}", f"slow-{n % 12}"))
        # The last one is kept for those that are known to answer.
        await eventually(lambda: world.running == 9)
        dispatcher.submit(errand("more", "known"))
        await eventually(lambda: "more" in book.settled)
        assert world.running == 9
        world.let_go.set()
        await eventually(lambda: len(book.settled) == 42)
    assert world.most == 10


async def test_64_hanging_hosts_leave_connections_at_the_default_bounds() -> None:
    world, book, given = World(), Book(), NotifierSettings()
    limits = EndpointLimits(max_window=given.max_connections_per_endpoint, breaker_failures=given.breaker_failures)
    bounds = {"max_connections": given.max_connections, "max_waiting": given.max_waiting}
    async with dispatching(world.send, book, limits=limits, **bounds) as dispatcher:
        for n in range(64 * 10):
            dispatcher.submit(errand(f"stuck-{n}", f"slow{n % 64}"))
        for n in range(200):
            dispatcher.submit(errand(f"quick-{n}", "fast"))
        await eventually(lambda: sum(name.startswith("quick") for name in book.settled) == 200)
        assert world.running >= 64 * 6  # nor are the hanging ones starved, should they come back
        assert not book.put_off_s


async def test_hosts_that_are_slow_but_answer_leave_connections_too() -> None:
    world, book, given = World(), Book(), NotifierSettings()
    limits = EndpointLimits(max_window=given.max_connections_per_endpoint)
    async with dispatching(world.send, book, limits=limits, max_connections=given.max_connections) as dispatcher:
        world.let_go.set()
        for n in range(8 * 200):  # their windows are wide open now
            dispatcher.submit(errand(f"early-{n}", f"slow{n % 8}"))
        await eventually(lambda: len(book.settled) == 8 * 200)
        world.let_go.clear()
        for n in range(8 * 100):
            dispatcher.submit(errand(f"late-{n}", f"slow{n % 8}"))
        dispatcher.submit(errand("quick", "fast"))
        await eventually(lambda: "quick" in book.settled)
        assert world.running < 400


async def test_what_its_rate_would_keep_waiting_goes_back_to_the_bus() -> None:
    world, book = World(), Book()
    named = Directory({"crm": NamedEndpoint(url="https://fast.example/", rate_per_s=2)})
    async with dispatching(world.send, book, route=Router(named).route) as dispatcher:
        for n in range(1_000):
            paced = errand(f"paced-{n}", "")
            dispatcher.submit(replace(paced, delivery=paced.delivery.to("crm")))
        await eventually(lambda: len(book.put_off_s) >= 1_000 - 31)
        assert dispatcher.in_hand <= 31  # 15 s at 2/s, and one that runs
        assert max(book.put_off_s.values()) > 400  # and each at its turn


async def test_an_endpoint_that_becomes_slow_gives_back_what_it_cannot_take_soon() -> None:
    book, slow = Book(), AttemptResult(Answer.SUCCESS, latency_s=14.0, status=200)

    async def send(_delivery: Delivery, _target: Target) -> AttemptResult:
        await asyncio.sleep(0)
        return slow

    limits = EndpointLimits(max_window=16)
    async with dispatching(send, book, limits=limits) as dispatcher:
        for n in range(500):
            dispatcher.submit(errand(f"r-{n}", "slow"))
        await eventually(lambda: len(book.settled) + len(book.put_off_s) == 500)
    assert len(book.put_off_s) > 450
    assert list(book.put_off_s.values()) == sorted(book.put_off_s.values())


async def test_what_waits_for_room_is_wanted_as_soon_as_its_endpoint_answers() -> None:
    world, book = World(), Book()
    async with dispatching(world.send, book, max_waiting=100) as dispatcher:
        for n in range(500):
            dispatcher.submit(errand(f"r-{n}", "slow"))
        await eventually(lambda: len(book.returned) > 400)
        assert all(one.for_room for one in book.returned)
        waits = replace(errand("waits", "slow").delivery, progress=PROGRESS.model_copy(update={"for_room": True}))
        line = dispatcher.line_of(waits)
        assert line is not None
        assert dispatcher.wanted(line) == 0  # it hangs
        assert dispatcher.wanted("a stranger") == 0
        world.let_go.set()
        await eventually(lambda: len(book.settled) + len(book.returned) == 500)
        assert 0 < dispatcher.wanted(line) <= 200  # of 100 places, and twice what is left of them


@pytest.mark.parametrize(
    ("for_room", "callback"), [(False, "https://slow.example/"), (True, "ftp://slow.example/"), (True, "")]
)
async def test_what_waits_for_its_time_or_has_no_way_waits_in_no_line(for_room: bool, callback: str) -> None:
    progress = PROGRESS.model_copy(update={"for_room": for_room})
    delivery = replace(errand("r", "").delivery, callback=callback, progress=progress)
    async with dispatching(World().send, Book()) as dispatcher:
        assert dispatcher.line_of(delivery) is None


async def test_an_opened_circuit_sends_what_waits_back_to_the_bus() -> None:
    world, book = World(answers={"slow": DEAD}), Book()
    async with dispatching(world.send, book) as dispatcher:
        for n in range(30):
            dispatcher.submit(errand(f"r-{n}", "slow"))
        await asyncio.sleep(0)
        world.let_go.set()
        await eventually(lambda: len(book.settled) + len(book.put_off_s) == 30)
        assert set(book.settled) == {f"r-{n}" for n in range(8)}
        assert min(book.put_off_s.values()) >= 59
        dispatcher.submit(errand("late", "slow"))
        await eventually(lambda: "late" in book.put_off_s)


async def test_a_refused_target_is_settled_without_an_attempt() -> None:
    world, book = World(), Book()
    async with dispatching(world.send, book) as dispatcher:
        dispatcher.submit(
            Errand(Delivery("r", b"{}", "http://10.0.0.1/", (), None, PROGRESS, "msg"), HERE, lambda: None)
        )
        await eventually(lambda: "r" in book.settled)
    assert book.settled["r"].answer is Answer.REFUSED
    assert world.most == 0


async def test_a_disabled_endpoint_is_asked_about_once_more_before_its_delivery_ends() -> None:
    """That it is enabled again may not be heard yet."""
    world, book = World(), Book()
    crm = Directory({"crm": NamedEndpoint(url="https://fast.example/")})
    crm.heard(EndpointChanged(name="crm", disabled=True, at=NOW))
    paced = errand("r", "")
    first = replace(paced, delivery=paced.delivery.to("crm"))
    async with dispatching(world.send, book, route=Router(crm).route) as dispatcher:
        dispatcher.submit(first)
        await eventually(lambda: "r" in book.put_off_s)
        assert 2.5 < book.put_off_s["r"] < 10
        again = book.returned[0].errand
        dispatcher.submit(again)
        await eventually(lambda: "r" in book.settled)
        assert book.settled.pop("r").answer is Answer.REFUSED
        crm.heard(EndpointChanged(name="crm", at=NOW))
        dispatcher.submit(again)
        await eventually(lambda: book.settled.get("r") == GOOD)
    assert not again.delivery.attempted().progress.asked_again


@pytest.mark.parametrize(("size", "answer"), [(20_000, Answer.SUCCESS), (20_001, Answer.REFUSED)])
async def test_a_body_past_the_bound_is_not_sent(size: int, answer: Answer) -> None:
    world, book = World(), Book()
    delivery = Delivery("r", b"x" * size, "https://fast.example/", (), None, PROGRESS, "msg")
    async with dispatching(world.send, book) as dispatcher:
        dispatcher.submit(Errand(delivery, HERE, lambda: None))
        await eventually(lambda: "r" in book.settled)
    assert book.settled["r"].answer is answer
    if answer is Answer.REFUSED:
        assert book.settled["r"].error == "the body has 20001 bytes, more than 20000"
        assert world.most == 0


async def test_an_endpoint_gets_no_more_than_its_rate() -> None:
    world, book = World(), Book()
    named = Directory({"crm": NamedEndpoint(url="https://fast.example/", rate_per_s=50)})
    starts: list[float] = []

    async def send(delivery: Delivery, target: Target) -> AttemptResult:
        if delivery.endpoint:
            starts.append(time.monotonic())
        return await world.send(delivery, target)

    async with dispatching(send, book, route=Router(named).route) as dispatcher:
        for n in range(6):
            paced = errand(f"paced-{n}", "")
            dispatcher.submit(replace(paced, delivery=paced.delivery.to("crm")))
        for n in range(6):
            dispatcher.submit(errand(f"free-{n}", "fast"))
        await eventually(lambda: len(book.settled) == 12)
    # Five intervals of 20 ms, however slow the machine is (1 ms for rounding).
    assert starts[-1] - starts[0] >= 0.099


async def test_the_others_do_not_wait_for_an_endpoint_with_a_rate() -> None:
    world, book = World(), Book()
    named = Directory({"crm": NamedEndpoint(url="https://fast.example/", rate_per_s=0.01)})
    async with dispatching(world.send, book, route=Router(named).route) as dispatcher:
        for n in range(6):
            paced = errand(f"paced-{n}", "")
            dispatcher.submit(replace(paced, delivery=paced.delivery.to("crm")))
            dispatcher.submit(errand(f"free-{n}", "fast"))
        await eventually(lambda: sum(name.startswith("free") for name in book.settled) == 6)
        assert sum(name.startswith("paced") for name in book.settled) == 1


async def test_drain_forgets_what_waits_of_lost_partitions_only() -> None:
    world, book = World(), Book()
    async with dispatching(world.send, book) as dispatcher:
        for n in range(20):
            dispatcher.submit(errand(f"here-{n}", "slow", HERE))
            dispatcher.submit(errand(f"there-{n}", "slow", THERE))
        draining = asyncio.create_task(dispatcher.drain([HERE], 5))
        await asyncio.sleep(0)  # it has forgotten what it will forget, and waits
        world.let_go.set()
        forgotten = {one.delivery.request_id for one in await draining}
        await eventually(lambda: dispatcher.in_hand == 0)
    assert forgotten
    assert all(name.startswith("here") for name in forgotten)
    assert len(forgotten | set(book.settled)) == 40


async def test_drain_gives_up_what_hangs_and_notes_what_was_answered() -> None:
    noting = asyncio.Event()

    class Slow(Book):
        async def settle(self, errand: Errand, endpoint: str, result: AttemptResult) -> None:
            await noting.wait()
            await super().settle(errand, endpoint, result)

    world, book = World(), Slow()
    async with dispatching(world.send, book) as dispatcher:
        for n in range(8):
            dispatcher.submit(errand(f"stuck-{n}", "slow"))
        dispatcher.submit(errand("answered", "fast"))
        await eventually(lambda: world.running == 8 and dispatcher.in_hand == 9)
        draining = asyncio.create_task(dispatcher.drain([HERE], 0.0))
        await eventually(lambda: world.running == 0)
        assert not draining.done()
        noting.set()
        forgotten = {one.delivery.request_id for one in await draining}
        assert set(book.settled) == {"answered"}
        assert forgotten == {f"stuck-{n}" for n in range(8)}
        # Nothing of it counts against the bounds any more.
        world.let_go.set()
        for n in range(8):
            dispatcher.submit(errand(f"again-{n}", "slow"))
        await eventually(lambda: len(book.settled) == 9)
        assert dispatcher.in_hand == 0


async def test_an_outcome_that_cannot_be_published_ends_the_stage() -> None:
    class Broken(Book):
        async def settle(self, errand: Errand, endpoint: str, result: AttemptResult) -> None:
            raise ConnectionError("no bus")

    async with dispatching(World().send, Broken()) as dispatcher:
        dispatcher.submit(errand("r", "fast"))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(dispatcher.watch(), 5)
