"""Admission to the lanes of one engine."""

import asyncio

from synth_consumer.worker.lane_gate import LaneGate
from tests.waiting import eventually


class Inside:
    """Takes that hold a lane until they are told to leave; remembers who was ever inside together."""

    def __init__(self, gate: LaneGate) -> None:
        self.gate = gate
        self.now: set[str] = set()
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def enter(self, name: str, *, alone: bool = False) -> None:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, alone))

    async def _hold(self, name: str, alone: bool) -> None:
        async with self.gate.lane(alone=alone):
            self.now.add(name)
            try:
                await self.leave[name].wait()
            finally:
                self.now.discard(name)

    async def is_now(self, *names: str) -> None:
        await eventually(lambda: self.now == set(names), 2, every_s=0.005)
        for _ in range(3):  # nobody else follows
            await asyncio.sleep(0)
        assert self.now == set(names)
        assert self.gate.busy == len(names)


async def test_nobody_enters_a_closed_gate_and_no_more_than_there_are_lanes() -> None:
    inside = Inside(LaneGate())
    for name in "abc":
        inside.enter(name)
    await inside.is_now()
    inside.gate.open(2)
    await inside.is_now("a", "b")
    inside.leave["a"].set()
    await inside.is_now("b", "c")
    inside.gate.close()
    inside.enter("d")
    inside.leave["b"].set()
    inside.leave["c"].set()
    await inside.is_now()
    inside.gate.open(1)
    await inside.is_now("d")
    inside.leave["d"].set()
    await inside.is_now()


async def test_a_suspect_waits_for_an_empty_engine_and_keeps_it_for_itself() -> None:
    inside = Inside(LaneGate())
    inside.gate.open(3)
    inside.enter("a")
    await inside.is_now("a")
    inside.enter("suspect", alone=True)
    inside.enter("second", alone=True)
    inside.enter("late")
    await inside.is_now("a")
    inside.leave["a"].set()
    await inside.is_now("suspect")
    inside.leave["suspect"].set()
    await inside.is_now("second")
    inside.leave["second"].set()
    await inside.is_now("late")
    inside.leave["late"].set()
    await inside.is_now()


async def test_a_suspect_that_gives_up_waiting_lets_the_others_in() -> None:
    inside = Inside(LaneGate())
    inside.gate.open(2)
    inside.enter("a")
    await inside.is_now("a")
    inside.enter("suspect", alone=True)
    await asyncio.sleep(0)
    inside.enter("b")
    await inside.is_now("a")
    inside.tasks["suspect"].cancel()
    await inside.is_now("a", "b")
    inside.leave["a"].set()
    inside.leave["b"].set()
    await inside.is_now()
