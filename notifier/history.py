"""The delivery log, as people ask about it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from infra.kafka.topics import ensure_topics, require_topics
from infra.settings import KafkaSettings
from notifier.bus_log import read_back, read_log
from schemas.codec import DecodeError, decode
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.topics import DELIVERIES


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
            and self.spans(last.at)
        )

    def spans(self, at: datetime) -> bool:
        """Whether a moment is within the time that was chosen."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


async def attempts(settings: KafkaSettings) -> AsyncIterator[DeliveryAttempted]:
    """Every attempt that is kept, those of one request in their order; what cannot be read is left out.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topics.
    """
    require_topics(await ensure_topics(settings, create=False))
    async for record in read_log(settings, DELIVERIES):
        try:
            yield decode(DeliveryAttempted, record.value)
        except DecodeError:
            continue


async def last_attempts(settings: KafkaSettings, choice: Choice, limit: int) -> list[DeliveryAttempted]:
    """The last attempts of the chosen deliveries, the newest `limit` of them in the order of time.

    Reads backwards, and no further than it must.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topics.
    """
    require_topics(await ensure_topics(settings, create=False))
    newest = Newest(choice, limit)
    async with aclosing(read_back(settings, DELIVERIES)) as pages:
        async for page in pages:
            for record in page.records:
                try:
                    newest.hear(decode(DeliveryAttempted, record.value))
                except DecodeError:
                    continue
            if newest.complete(page.unread_ms):
                break
    return newest.chosen


class Newest:
    """The newest of the chosen deliveries, found in a log that is heard backwards. Pure."""

    def __init__(self, choice: Choice, limit: int) -> None:
        self._choice = choice
        self._limit = limit
        self._chosen: list[DeliveryAttempted] = []
        self._seen: set[int] = set()  # hashes: a million deliveries are some tens of megabytes

    def hear(self, event: DeliveryAttempted) -> None:
        """An attempt; the first that is heard of a delivery is its last."""
        name = hash((event.request_id, event.endpoint))
        if name in self._seen:
            return
        self._seen.add(name)
        if self._choice.takes(event):
            self._chosen.append(event)

    @property
    def chosen(self) -> list[DeliveryAttempted]:
        """In the order of time."""
        self._chosen = sorted(self._chosen, key=lambda event: event.at)[-self._limit :]
        return self._chosen

    def complete(self, unread_ms: int) -> bool:
        """Whether nothing published until `unread_ms` (milliseconds since 1970) can be among the newest."""
        # An attempt is made before it is published, so its own moment is no later; whole milliseconds are rounded down.
        latest_s = (unread_ms + 1) / 1000
        since = self._choice.since
        if since is not None and latest_s <= since.timestamp():
            return True
        chosen = self.chosen
        return len(chosen) == self._limit and latest_s <= chosen[0].at.timestamp()
