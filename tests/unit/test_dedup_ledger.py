"""Acknowledging in order, and no more in hand than allowed."""

import asyncio

import pytest

from synth_consumer.dedup.ledger import Ledger


class Event:
    def __init__(self, log: list[int], offset: int) -> None:
        self.log, self.offset = log, offset

    def ack(self) -> bool:
        self.log.append(self.offset)
        return True


def test_events_are_acknowledged_in_the_order_of_their_partition() -> None:
    ledger, log = Ledger(10), []
    first, second, third = (ledger.begin(0, Event(log, offset)) for offset in range(3))
    other = ledger.begin(1, Event(log, 100))
    ledger.finish(third)
    ledger.finish(second)
    assert log == []
    ledger.finish(other)
    assert log == [100]
    ledger.finish(first)
    assert log == [100, 0, 1, 2]
    assert ledger.in_flight == 0


async def test_no_more_than_the_limit_is_in_hand() -> None:
    ledger, log = Ledger(2), []
    entries = [ledger.begin(0, Event(log, offset)) for offset in range(2)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ledger.room(), 0.01)
    ledger.finish(entries[0])
    await asyncio.wait_for(ledger.room(), 0.01)
