"""Completions put on their way again: which of them, and for whom."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from aiokafka import ConsumerRecord

from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings
from notifier.bus_log import read_log
from notifier.delivery import Delivery, UnreadableDeliveryError, read_delivery
from notifier.history import Choice, attempts
from notifier.named_endpoint import NamedEndpoint
from notifier.tiers import FIRST_TIER
from schemas.base import utc_now
from schemas.codec import Message
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.topics import COMPLETED

Receiver = str | None
"""A named endpoint, or None for the request's own callback."""
_BATCH = 500
# How far the clocks of two machines may be apart.
_SKEW = timedelta(minutes=5)
# Notifiers hear that an endpoint was enabled within a second or two; what comes before would be a dead letter again.
_ENABLED_HEARD_MS = 3_000


@dataclass(slots=True)
class Replayed:
    """What a replay came to."""

    deliveries: int = 0
    """Put on their way."""
    retrying: frozenset[str] = frozenset()
    """Requests with a delivery that was chosen and left alone: its next attempt comes by itself."""
    missing: frozenset[str] = frozenset()
    """Requests that were named, of which nothing is kept that could be delivered."""


class Selection(Protocol):
    """Learns from the delivery log, then says of each completion where it is to go."""

    def hear(self, event: DeliveryAttempted) -> None:
        """An attempt, in the order of the log."""

    def receivers(self, delivery: Delivery, at: datetime) -> list[Receiver]:
        """Who gets a completion that was published then; nobody when it is asked about again."""

    @property
    def retrying(self) -> frozenset[str]:
        """Requests left alone, because their next attempt comes by itself."""

    @property
    def missing(self) -> frozenset[str]:
        """Named requests that `receivers` was not asked about, or that have no receiver."""


@dataclass(slots=True)
class Attempted:
    """Deliveries by their last attempt; of a request that is named without more, also a callback never tried. Pure."""

    choice: Choice
    _chosen: dict[str, set[Receiver]] = field(default_factory=dict)
    _retrying: dict[str, set[Receiver]] = field(default_factory=dict)
    _served: set[str] = field(default_factory=set)

    def hear(self, event: DeliveryAttempted) -> None:
        """The last of a delivery's attempts decides, so what an earlier one chose is taken back."""
        name, receiver = event.request_id, event.endpoint
        for kept in (self._chosen, self._retrying):
            if receiver in kept.get(name, ()):
                kept[name].discard(receiver)
                if not kept[name]:
                    del kept[name]
        if self.choice.takes(event):
            kept = self._retrying if event.state is DeliveryState.RETRYING else self._chosen
            kept.setdefault(name, set()).add(receiver)

    def receivers(self, delivery: Delivery, at: datetime) -> list[Receiver]:
        """A completion's publishing does not matter here; its attempts do."""
        name = delivery.request_id
        if name in self._served:
            return []  # an end may stand on the topic twice
        wanted = set(self._chosen.get(name, ()))
        if name in (self.choice.request_ids or ()) and not self.choice.by_history:
            wanted.add(None)
        wanted -= self._retrying.get(name, set())
        if not delivery.callback:
            wanted.discard(None)
        if wanted:
            self._served.add(name)
        return sorted(wanted, key=lambda receiver: receiver or "")

    @property
    def retrying(self) -> frozenset[str]:
        """Of the chosen ones."""
        return frozenset(self._retrying)

    @property
    def missing(self) -> frozenset[str]:
        """Named, neither replayed nor under way."""
        return (self.choice.request_ids or frozenset()) - self._served - self._retrying.keys()


@dataclass(slots=True)
class Missed:
    """What a named endpoint wants and was never given, attempted or not: it may have been disabled then. Pure."""

    name: str
    endpoint: NamedEndpoint
    choice: Choice
    _given: set[str] = field(default_factory=set)
    _retrying: set[str] = field(default_factory=set)

    def hear(self, event: DeliveryAttempted) -> None:
        """Once given is given, whatever a later replay came to."""
        # No attempt comes before its completion, so what is older concerns no completion of the chosen time.
        old = self.choice.since is not None and event.at < self.choice.since - _SKEW
        if event.endpoint != self.name or old:
            return
        self._retrying.discard(event.request_id)
        if event.state is DeliveryState.DELIVERED:
            self._given.add(event.request_id)
        elif event.state is DeliveryState.RETRYING:
            self._retrying.add(event.request_id)

    def receivers(self, delivery: Delivery, at: datetime) -> list[Receiver]:
        """The endpoint, for what was published in the chosen time."""
        name = delivery.request_id
        if not self.choice.spans(at) or name in self._given or name in self._retrying:
            return []
        if not self.endpoint.wants(delivery.event_type):
            return []
        self._given.add(name)
        return [self.name]

    @property
    def retrying(self) -> frozenset[str]:
        """Under way to the endpoint, and not given before."""
        return frozenset(self._retrying - self._given)

    @property
    def missing(self) -> frozenset[str]:
        """Nothing is named."""
        return frozenset()


async def replay(settings: KafkaSettings, selection: Selection) -> Replayed:
    """Put the selected completions on the first retry tier, to be delivered as if for the first time.

    Holds the names of the selected deliveries and one batch of completions, however many there are.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topics.
    """
    async for event in attempts(settings):
        selection.hear(event)
    done = Replayed(retrying=selection.retrying)
    async with bus_producer(settings, client_id="voxbus-webhooks") as producer:
        async for batch in _batches(settings, selection):
            await producer.deliver(FIRST_TIER, *batch)
            done.deliveries += len(batch)
    done.missing = selection.missing
    return done


async def _batches(settings: KafkaSettings, selection: Selection) -> AsyncIterator[list[Message]]:
    batch: list[Message] = []
    async for record in read_log(settings, COMPLETED):
        batch += _messages(record, selection)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _messages(record: ConsumerRecord, selection: Selection) -> Iterable[Message]:
    try:
        delivery = read_delivery(record, without_callback=True)
    except UnreadableDeliveryError:
        return
    if delivery is None:
        return
    now_ms = int(utc_now().timestamp() * 1000)
    for name in selection.receivers(delivery, datetime.fromtimestamp(record.timestamp / 1000, UTC)):
        due_ms = now_ms + _ENABLED_HEARD_MS if name else now_ms
        yield delivery.to(name).anew(now_ms).waiting(now_ms, due_ms)[1]
