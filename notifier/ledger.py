"""Which attempts are known to be settled, and which deliveries are in hand, so that a record that comes twice costs
nothing.

Offsets move behind the slowest work of a partition, so after a crash records come again that were delivered long ago;
their events on `tts.deliveries` say so. What is left to be repeated is what the crash met between an answer and its
event. Bounded: what was forgotten only means an attempt more.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True)
class Settled:
    """An attempt whose outcome is on the bus."""

    delivery_id: str
    attempt: int
    ended: bool
    """No other attempt follows."""


class Verdict(StrEnum):
    """What to do with a record whose attempt is due."""

    ATTEMPT = "attempt"
    NOTHING = "nothing"
    """It is settled: the delivery ended, or a record of a later attempt waits on the bus."""
    LATER = "later"
    """A copy is in hand, with this attempt or an earlier one; how that ends decides."""


class Ledger:
    """Knows deliveries by `Delivery.id`.

    A crash between a waiting record and the event of its attempt leaves two records of one delivery, at different
    attempts. The one furthest on must live; the others may go.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._settled: OrderedDict[str, float] = OrderedDict()  # highest attempt settled; infinite once ended
        self._in_hand: dict[str, int] = {}

    def begin(self, delivery_id: str, attempt: int) -> Verdict:
        """Take an attempt in hand, if it is to be made now."""
        if attempt <= self._settled.get(delivery_id, 0):
            return Verdict.NOTHING
        in_hand = self._in_hand.get(delivery_id)
        if in_hand is not None:
            # Of the same attempt it may be the very record in hand, read again after a rebalance that took it out of
            # this member's offsets: finished now, a kill before the attempt is settled would lose the delivery.
            return Verdict.NOTHING if attempt < in_hand else Verdict.LATER
        self._in_hand[delivery_id] = attempt
        return Verdict.ATTEMPT

    def release(self, delivery_id: str, attempt: int) -> None:
        """The attempt was not made; it may come again."""
        if self._in_hand.get(delivery_id) == attempt:
            del self._in_hand[delivery_id]

    def settle(self, settled: Settled) -> None:
        """The attempt was made, and all that follows is durable."""
        self.release(settled.delivery_id, settled.attempt)
        self.recall((settled,))

    def recall(self, log: Iterable[Settled]) -> None:
        """Remember what the delivery log says was settled."""
        for settled in log:
            reached = math.inf if settled.ended else settled.attempt
            known = self._settled.get(settled.delivery_id, 0)
            self._settled[settled.delivery_id] = max(known, reached)
            self._settled.move_to_end(settled.delivery_id)
        while len(self._settled) > self._remembered:
            self._settled.popitem(last=False)
