"""Why a webhook was posted again after its receiver had said 2xx. Pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

# A 2xx is noted within milliseconds; behind a slow bus and 512 others it takes longer.
_UNNOTED_S = 5.0
# What a killed notifier had sent is read and written down by the receiver a moment later; so is what is in its sockets.
_ON_THE_WIRE_S = 1.0


class Cause(StrEnum):
    """Kinds of crash that explain a repeat."""

    NOTIFIER = "notifier killed between send and commit"
    RECEIVER = "receiver killed between logging 204 and answering"
    NONE = "unattributed"


@dataclass(frozen=True)
class Arrival:
    """One request as the receiver wrote it down; `at` in seconds since 1970, status 0 for one that hung."""

    at: float
    webhook_id: str
    status: int
    request_id: str

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Repeat:
    """A request that came after a 2xx; moments in seconds since 1970."""

    request_id: str
    accepted_at: float
    """The last 2xx before it."""
    again_at: float


@dataclass(frozen=True)
class Events:
    """What happened beside the deliveries; moments in seconds since 1970."""

    notifier_kills: Collection[float]
    """Just before the signal was sent: what was noted by then stays noted."""
    receiver_kills: Collection[float]
    """Just after the process was gone: by then it had written down all that it ever would."""
    noted: Mapping[str, float]
    """When each request was first noted as delivered on the log."""
    unanswered: Mapping[str, Collection[float]]
    """When attempts of each request were noted that got no answer."""


def repeats(arrivals: Iterable[Arrival]) -> Iterator[Repeat]:
    """Every request that came after a 2xx of its webhook-id."""
    each: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        each[arrival.webhook_id].append(arrival)
    for theirs in each.values():
        accepted_at: float | None = None
        for arrival in sorted(theirs, key=lambda one: one.at):
            if accepted_at is not None:
                yield Repeat(arrival.request_id, accepted_at, arrival.at)
            if arrival.accepted:
                accepted_at = arrival.at


def cause(repeat: Repeat, events: Events) -> Cause:
    """The crash between the 2xx and the repeat that kept the 2xx from being noted."""
    noted = events.noted.get(repeat.request_id, float("inf"))
    for killed in events.notifier_kills:
        close = repeat.accepted_at - _ON_THE_WIRE_S <= killed <= repeat.accepted_at + _UNNOTED_S
        if close and killed < min(noted, repeat.again_at):
            return Cause.NOTIFIER
    for killed in events.receiver_kills:
        unanswered = events.unanswered.get(repeat.request_id, ())
        # The sender must have seen the connection break, or the answer did arrive.
        broke = any(repeat.accepted_at <= at <= repeat.again_at for at in unanswered)
        if broke and 0 <= killed - repeat.accepted_at <= _ON_THE_WIRE_S:
            return Cause.RECEIVER
    return Cause.NONE


def causes(arrivals: Iterable[Arrival], events: Events) -> Counter[Cause]:
    """How many repeats each cause explains."""
    return Counter(cause(repeat, events) for repeat in repeats(arrivals))


def unexplained(arrivals: Iterable[Arrival], events: Events) -> list[str]:
    """Each repeat without a cause, in words: its moments, in seconds after its first 2xx."""
    found = []
    for repeat in repeats(arrivals):
        if cause(repeat, events) is Cause.NONE:
            noted = events.noted.get(repeat.request_id, float("nan"))
            moments = {
                "again": [repeat.again_at],
                "noted": [noted],
                "unanswered": events.unanswered.get(repeat.request_id, ()),
                "notifier killed": events.notifier_kills,
                "receiver killed": events.receiver_kills,
            }
            after = {name: [round(at - repeat.accepted_at, 3) for at in each] for name, each in moments.items()}
            found.append(f"{repeat.request_id}: {after}")
    return found


def after_noted(arrivals: Iterable[Arrival], noted: Mapping[str, float]) -> int:
    """Requests that came after their delivery was noted on the log; no crash explains one."""
    return sum(arrival.at > noted.get(arrival.request_id, float("inf")) for arrival in arrivals)
