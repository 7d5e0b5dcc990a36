"""A delivery in hand, and what becomes of it: the words between intake, dispatch and settlement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka import TopicPartition

from notifier.attempt import AttemptResult
from notifier.delivery import Delivery


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """A delivery in hand, and the partition its record came from."""

    delivery: Delivery
    partition: TopicPartition
    done: Callable[[], None]
    """To be called once all that follows is durable."""


@dataclass(frozen=True, slots=True, eq=False)
class Return:
    """An errand that goes back to the bus without an attempt."""

    errand: Errand
    due_ms: int
    """When it is to be attempted, in milliseconds since 1970."""
    begun: bool
    """Whether the ledger holds its attempt in hand; not so of what was not due, or is a copy."""
    for_room: bool = False
    """Whether it waits for room at its endpoint only, and may be attempted before it is due."""


class Settlement(Protocol):
    """What is done with the outcome of an errand."""

    async def settle(self, errand: Errand, endpoint: str, result: AttemptResult) -> None:
        """An attempt was made: publish what follows, then call the errand done."""

    async def give_back(self, batch: Sequence[Return]) -> None:
        """No attempt was made: let the deliveries wait on the bus, then call the errands done."""
