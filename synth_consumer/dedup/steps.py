"""What an event leads to, as values: rows to write, messages to publish, rows to remove afterwards.

The order is the safety: rows are written and messages published at once, both confirmed by the bus before the event
counts as done; rows that stand for unfinished work are removed only after the messages that finish it are confirmed.
A worker killed anywhere in between does the event again and comes to the same end.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from schemas.base import Event
from schemas.codec import Context, Message, encode
from synth_consumer.dedup.rows import DeliveryRow, RequestRow, SynthesisRow, TableName, WaiterRow

SOURCE = "voxbus/dedup"
Kind = Literal[
    "new", "join", "stored", "transcode", "repeat", "expired", "cancelled",
    "accepted", "refused", "conflict", "rekeyed",
    "settled", "failed", "redriven", "progress", "ignored", "tracked", "noted", "ticked",
]  # fmt: skip
_IDS = uuid.UUID("6f0b6f6e-37a5-4d61-9a3c-5d2c8f9a1e07")


@dataclass(frozen=True, slots=True)
class Write:
    """A row as it stands from now on; None removes it."""

    table: TableName
    key: bytes
    row: RequestRow | SynthesisRow | WaiterRow | DeliveryRow | None


@dataclass(frozen=True, slots=True)
class Output:
    """A message for a topic; without a partition its key decides."""

    topic: str
    message: Message
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """All that one event leads to."""

    kind: Kind
    writes: tuple[Write, ...] = ()
    outputs: Iterable[Output] = ()
    """May be made while it is read: an end can have ten thousand waiters."""
    ends: tuple[WaiterRow, ...] = ()
    """Waiters whose end is among the outputs; their rows go once those are confirmed."""
    forget: tuple[str, str] | None = field(default=None)
    """Fingerprint and job: a failed synthesis whose row goes last of all."""


def say(topic: str, event: Event, context: Context | None = None, *, event_id: str | None = None) -> Output:
    """An event of ours for a topic."""
    return Output(topic, encode(event, source=SOURCE, context=context, event_id=event_id))


def derived_id(*parts: str) -> str:
    """An id that comes out the same when the same message is handled again."""
    return uuid.uuid5(_IDS, "\n".join(parts)).hex
