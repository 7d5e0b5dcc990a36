"""What a slot pulls, by the lanes that its engine has at the time."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from infra.settings import KafkaSettings
from schemas.codes import Priority
from synth_consumer.worker.lane_gate import LaneGate
from synth_consumer.worker.settings import SynthSettings
from synth_consumer.worker.slot import Slot
from synth_consumer.worker.turns import Turns

_BOTH = (Priority.INTERACTIVE, Priority.BULK)


class World:
    """A slot with jobs in an engine whose lanes change."""

    def __init__(self, **settings: Any) -> None:
        self.gate, up, absent = LaneGate(), asyncio.Event(), Any
        up.set()
        keeper: Any = SimpleNamespace(gate=self.gate, up=up, ready=SimpleNamespace(lanes=8))
        self.slot = Slot(
            0,
            settings=SynthSettings(**settings),
            kafka=KafkaSettings(),
            keeper=keeper,
            speaker=absent,
            book=absent,
            producer=absent,
            drain_timeout_s=1,
            on_change=lambda: None,
        )
        self._turns = Turns(8)

    def jobs(self, interactive: int, bulk: int = 0) -> None:
        priorities = [Priority.INTERACTIVE] * interactive + [Priority.BULK] * bulk
        jobs: Any = {Job(priority=one, in_engine=True) for one in priorities}
        self.slot._jobs = jobs

    @property
    def open_queues(self) -> tuple[Priority, ...]:
        return self.slot._open_queues(self._turns)


class Job(SimpleNamespace):
    __hash__ = object.__hash__


def test_no_job_is_pulled_for_a_lane_that_was_taken_away() -> None:
    world = World()
    world.gate.open(8)
    world.jobs(4)
    assert world.open_queues == _BOTH
    world.gate.open(4)
    assert world.open_queues == ()
    world.gate.open(5)
    assert world.open_queues == _BOTH
    world.gate.close()
    assert world.open_queues == ()


@pytest.mark.parametrize(
    ("lanes", "by_hand", "bulk_lanes"), [(8, None, 6), (4, None, 3), (1, None, 1), (8, 3, 5), (2, 3, 1)]
)
def test_lanes_kept_free_of_bulk_follow_the_lanes(lanes: int, by_hand: int | None, bulk_lanes: int) -> None:
    world = World(interactive_lanes=by_hand)
    world.gate.open(lanes)
    world.jobs(0, bulk_lanes - 1)
    assert world.open_queues == _BOTH
    world.jobs(0, bulk_lanes)
    assert Priority.BULK not in world.open_queues
