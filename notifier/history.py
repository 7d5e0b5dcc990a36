"""The delivery log by request, and completions put on their way again."""

from dataclasses import dataclass
from datetime import datetime

from infra.kafka.clients import bus_producer
from infra.kafka.topics import ensure_topics, require_topics
from infra.settings import KafkaSettings
from notifier.bus_log import read_log
from notifier.delivery import Delivery, UnreadableDeliveryError, read_delivery
from notifier.tiers import FIRST_TIER
from schemas.base import utc_now
from schemas.codec import DecodeError, decode
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.topics import COMPLETED, DELIVERIES


@dataclass(frozen=True, slots=True)
class Choice:
    """Which deliveries; what is absent does not narrow."""

    request_ids: frozenset[str] | None = None
    state: DeliveryState | None = None
    endpoint: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def by_history(self) -> bool:
        """Whether the delivery log is needed to choose."""
        return any((self.state, self.endpoint, self.since, self.until))

    def takes(self, last: DeliveryAttempted) -> bool:
        """Whether a delivery with this last attempt is chosen."""
        return (
            (self.request_ids is None or last.request_id in self.request_ids)
            and (self.state is None or last.state is self.state)
            and (self.endpoint is None or self.endpoint in {last.host, last.endpoint})
            and (self.since is None or last.at >= self.since)
            and (self.until is None or last.at < self.until)
        )


@dataclass(frozen=True, slots=True)
class History:
    """Every attempt of one request for one receiver, in order; replays go on in the same list."""

    events: list[DeliveryAttempted]

    @property
    def last(self) -> DeliveryAttempted:
        """The latest attempt."""
        return self.events[-1]


async def histories(settings: KafkaSettings, choice: Choice) -> list[History]:
    """The chosen deliveries, ordered by their last attempt.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topics.
    """
    require_topics(await ensure_topics(settings, create=False))
    found: dict[tuple[str, str | None], list[DeliveryAttempted]] = {}
    async for record in read_log(settings, DELIVERIES):
        try:
            event = decode(DeliveryAttempted, record.value)
        except DecodeError:
            continue
        if choice.request_ids is None or event.request_id in choice.request_ids:
            found.setdefault((event.request_id, event.endpoint), []).append(event)
    chosen = [History(events) for events in found.values() if choice.takes(events[-1])]
    return sorted(chosen, key=lambda history: history.last.at)


async def replay_completions(settings: KafkaSettings, choice: Choice) -> set[str]:
    """Put the chosen completions on the first retry tier, to be delivered as if for the first time.

    Returns:
        The request ids that were put there.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topics.
    """
    receivers: dict[str, set[str | None]] = {}
    for history in await histories(settings, choice):
        receivers.setdefault(history.last.request_id, set()).add(history.last.endpoint)
    if not choice.by_history:
        # Also what was never attempted: the callback of a request that is named.
        for request_id in choice.request_ids or ():
            receivers.setdefault(request_id, set()).add(None)
    latest: dict[str, Delivery] = {}
    async for record in read_log(settings, COMPLETED):
        if record.key is None or record.key.decode("utf-8", "replace") not in receivers:
            continue
        try:
            delivery = read_delivery(record, without_callback=True)
        except UnreadableDeliveryError:
            continue
        if delivery is not None:
            latest[delivery.request_id] = delivery
    async with bus_producer(settings, client_id="voxbus-webhooks") as producer:
        now_ms = int(utc_now().timestamp() * 1000)
        chosen = [
            delivery.to(name).anew(now_ms)
            for delivery in latest.values()
            for name in receivers[delivery.request_id]
            if name or delivery.callback
        ]
        await producer.deliver(FIRST_TIER, *(delivery.waiting(now_ms, now_ms)[1] for delivery in chosen))
    return {delivery.request_id for delivery in chosen}
