"""What goes back to the bus goes in batches, rests in between, and is forgotten when its partition is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from notifier.delivery import Delivery
from notifier.errand import Errand, Return
from notifier.returns import Returns
from schemas.deliveries import DeliveryProgress
from tests.waiting import eventually

HERE, THERE = TopicPartition("t", 0), TopicPartition("t", 1)
PROGRESS = DeliveryProgress(attempts=0, due_ms=0, release_ms=0, first_ms=0, partition=0, offset=0)
DELIVERY = Delivery("r", b"{}", "https://a.example/", (), None, PROGRESS, "msg")


def one(partition: TopicPartition = HERE) -> Return:
    return Return(Errand(DELIVERY, partition, lambda: None), 0, begun=True)


@dataclass
class Bus:
    """Takes batches when let; notes when."""

    sizes: list[int] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    let: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[BaseException] = field(default_factory=list)
    broken: bool = False

    async def take(self, batch: Sequence[Return]) -> None:
        await self.let.wait()
        if self.broken:
            raise ConnectionError("no bus")
        self.sizes.append(len(batch))
        self.moments.append(time.monotonic())


@asynccontextmanager
async def returning(bus: Bus, *, hurry_at: int = 1_000) -> AsyncIterator[Returns]:
    returns = Returns(bus.take, bus.failures.append, hurry_at=hurry_at)
    try:
        yield returns
    finally:
        await returns.close()


async def test_many_go_in_batches_with_rests() -> None:
    bus = Bus()
    bus.let.set()
    async with returning(bus) as returns:
        for _ in range(250):
            returns.add(one())
        assert len(returns) == 250
        await eventually(lambda: len(returns) == 0)
        assert bus.sizes == [100, 100, 50]
        assert all(later - before > 0.09 for before, later in zip(bus.moments, bus.moments[1:], strict=False))
        returns.add(one())
        await eventually(lambda: bus.sizes == [100, 100, 50, 1])


async def test_too_many_do_not_rest() -> None:
    bus = Bus()
    bus.let.set()
    async with returning(bus, hurry_at=1) as returns:
        began = time.monotonic()
        for _ in range(10_000):
            returns.add(one())
        await eventually(lambda: len(returns) == 0)
    assert len(bus.sizes) == 100
    assert bus.moments[-1] - began < 5  # with rests it would take 10 s


async def test_of_lost_partitions_what_is_not_under_way_is_forgotten() -> None:
    bus = Bus()
    async with returning(bus) as returns:
        for _ in range(150):
            returns.add(one(HERE))
        returns.add(one(THERE))
        await eventually(lambda: returns.under_way({HERE}) is not None)
        assert len(returns.take_out({HERE})) == 50
        assert returns.under_way({THERE}) is None
        batch = returns.under_way({HERE})
        assert batch is not None
        bus.let.set()
        await batch
        await eventually(lambda: bus.sizes == [100, 1])


async def test_a_bus_that_takes_nothing_is_told() -> None:
    bus = Bus(broken=True)
    bus.let.set()
    async with returning(bus) as returns:
        returns.add(one())
        await eventually(lambda: [type(error) for error in bus.failures] == [ConnectionError])


async def test_closing_leaves_nothing_behind() -> None:
    bus = Bus()
    async with returning(bus) as returns:
        returns.add(one())
        await eventually(lambda: returns.under_way({HERE}) is not None)
    bus.let.set()
    await asyncio.sleep(0)
    assert not bus.sizes
    assert not bus.failures
