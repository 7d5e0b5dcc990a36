"""Work in hand: bounded, one at a time for a fingerprint, drained within the deadline."""

import asyncio

import pytest
from aiokafka import TopicPartition

from infra.lifecycle import Deadline
from tests.waiting import eventually
from uploader.hands import Hands

HERE, THERE = TopicPartition("tts.audio", 0), TopicPartition("tts.audio", 1)


class Work:
    """Pieces of work that run until they are released."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.done: list[str] = []
        self.release = asyncio.Event()

    async def piece(self, name: str) -> None:
        self.running.append(name)
        await self.release.wait()
        self.running.remove(name)
        self.done.append(name)


async def test_only_so_many_run_at_once() -> None:
    hands, work = Hands(2), Work()
    for name in "abc":
        hands.take_up(HERE, name, work.piece(name))
    await eventually(lambda: work.running == ["a", "b"])
    assert len(hands) == 3
    work.release.set()
    await eventually(lambda: work.done == ["a", "b", "c"])
    assert len(hands) == 0


async def test_one_fingerprint_is_worked_on_once_at_a_time_and_holds_nobody_up() -> None:
    hands, work = Hands(2), Work()
    for name, fingerprint in (("a1", "a"), ("a2", "a"), ("b", "b")):
        hands.take_up(HERE, fingerprint, work.piece(name))
    await eventually(lambda: work.running == ["a1", "b"])
    work.release.set()
    await eventually(lambda: work.done == ["a1", "b", "a2"])


async def test_a_drain_waits_for_its_partitions_only_and_then_lets_go() -> None:
    hands, work, forgotten = Hands(4), Work(), list[frozenset[TopicPartition]]()
    hands.forget = forgotten.append
    hands.take_up(HERE, "a", work.piece("here"))
    hands.take_up(THERE, "b", work.piece("there"))
    await eventually(lambda: len(work.running) == 2)

    await hands.drain(frozenset({HERE}), Deadline(0.05))
    assert len(hands) == 1
    assert forgotten == [frozenset({HERE})]
    work.release.set()
    await hands.drain(frozenset({THERE}), Deadline(5))
    assert work.done == ["there"]


async def test_work_cancelled_before_its_turn_is_closed() -> None:
    hands, work = Hands(1), Work()
    hands.take_up(HERE, "a", work.piece("first"))
    hands.take_up(HERE, "b", work.piece("second"))
    await hands.drain(frozenset({HERE}), Deadline(0.01))
    assert len(hands) == 0
    assert work.done == []


async def test_work_that_fails_ends_the_process_and_cancelled_work_does_not() -> None:
    async def broken() -> None:
        raise ValueError("nobody foresaw it")

    hands, work = Hands(2), Work()
    watch = asyncio.create_task(hands.failure())
    hands.take_up(HERE, "a", work.piece("a"))
    await eventually(lambda: work.running == ["a"])
    await hands.drain(frozenset({HERE}), Deadline(0.01))
    assert not watch.done()
    hands.take_up(HERE, "b", broken())
    with pytest.raises(ValueError, match="nobody foresaw it"):
        await watch
