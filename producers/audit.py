"""The audit's judgement, without I/O: what the logs say of every request, and what the bucket holds, give findings.

Every request the bus knows must have exactly one terminal state, on `tts.status` and `tts.completed` alike; every
completed one an object that agrees with its completion; every callback a delivery or a dead letter. The same end
said twice is no finding, since stages publish at least once; it is counted. A request that has no end yet and may
still get one is no finding either: it is open.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from producers.arrivals import Arrivals
from schemas import topics
from schemas.codes import State
from schemas.completions import AudioInfo, CompletionData, RequestStatus
from schemas.dead_letters import DeadLetter
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.requests import SynthesisAdmitted

# What a request that expires needs to be told of it.
_GRACE = timedelta(seconds=60)


class Finding(StrEnum):
    """What can be wrong with a request."""

    LOST = "lost"
    """Published, and nothing was ever heard of it."""
    UNFINISHED = "unfinished"
    """Known to the bus, without an end."""
    CONTRADICTORY = "contradictory"
    """More than one end, or one end with two contents."""
    STATUS_MISSING = "status_missing"
    """A completion whose state never came on `tts.status`."""
    COMPLETION_MISSING = "completion_missing"
    """A terminal state without its event on `tts.completed`."""
    OBJECT_MISSING = "object_missing"
    """Completed, and its audio is not in the bucket."""
    OBJECT_DAMAGED = "object_damaged"
    """Completed, and its audio is of another size or checksum."""
    UNDELIVERED = "undelivered"
    """A callback neither delivered nor dead-lettered."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """One object as found in the bucket."""

    bytes: int
    sha256: str | None
    """Of its content; None when it was not read."""


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """One object as a completion promises it."""

    url: str
    bytes: int
    sha256: str


@dataclass(slots=True)
class _Entry:
    seen: datetime | None = None
    """When the oldest record about it that is still kept was written."""
    until: datetime | None = None
    """When it must have an end; None: nothing that is kept says so."""
    heard: bool = False
    """More than its publication is known."""
    states: set[State] = field(default_factory=set)
    ends: set[State] = field(default_factory=set)
    contents: set[tuple[str | None, str | None]] = field(default_factory=set)
    """Checksum of the audio and code of the failure, as its completions have them."""
    cached: bool = False
    audio: ExpectedObject | None = None
    callback: bool = False
    delivery: DeliveryState | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the audit has to say."""

    counts: Mapping[str, int]
    findings: Mapping[Finding, list[str]]
    """Request ids, sorted; kinds without any are left out. A record without an id goes by its place."""
    open: tuple[str, ...] = ()
    """Requests without an end that may still get one."""

    @property
    def good(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Plain data: `ok`, the counts, the ids."""
        findings = {str(kind): ids for kind, ids in self.findings.items()}
        return {"ok": self.good, **self.counts, "open": list(self.open), "findings": findings}


class Ledger:
    """Takes the events of the logs in any order, any number of times each, and judges at the end."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._repeated = 0
        self._dead_letters: Counter[str] = Counter()
        self._kept_since: datetime | None = None
        self.arrivals = Arrivals()

    def written(self, request_id: str, at: datetime) -> None:
        """Any record about a request, and when it was written."""
        entry = self._entry(request_id)
        entry.seen = min(entry.seen or at, at)

    def kept_since(self, at: datetime) -> None:
        """A topic no longer holds what was written before: of older requests not everything can be known."""
        self._kept_since = max(self._kept_since or at, at)

    def requested(self, request_id: str, until: datetime) -> None:
        """From `tts.requests`: a record with an id."""
        self._entry(request_id).until = _later(self._entry(request_id).until, until)

    def admitted(self, event: SynthesisAdmitted) -> None:
        """From `tts.admitted`."""
        entry = self._entry(event.request_id)
        entry.heard = True
        entry.until = _later(entry.until, event.expires_at)
        entry.callback |= event.callback_url is not None

    def status(self, event: RequestStatus) -> None:
        """From `tts.status`."""
        entry = self._entry(event.request_id)
        if event.state.terminal and event.state in entry.states:
            self._repeated += 1
        entry.heard = True
        entry.states.add(event.state)

    def completed(self, completion: CompletionData, *, callback: bool) -> None:
        """From `tts.completed`; `callback`: an address travelled beside it."""
        entry = self._entry(completion.request_id)
        end = State(completion.status)
        if end in entry.ends:
            self._repeated += 1
        entry.heard = True
        entry.ends.add(end)
        audio, error = completion.audio, completion.error
        entry.contents.add((audio.sha256 if audio else None, error.code if error else None))
        entry.callback |= callback
        entry.cached |= completion.cached
        if completion.audio is not None:
            entry.audio = _expected(completion.audio)

    def delivery(self, event: DeliveryAttempted) -> None:
        """From `tts.deliveries`. Delivered stands, whatever else was tried."""
        if event.endpoint is not None:
            return  # a named endpoint's; the audit is about callbacks
        entry = self._entry(event.request_id)
        if entry.delivery is not DeliveryState.DELIVERED:
            entry.delivery = event.state if event.state is not DeliveryState.RETRYING else entry.delivery

    def dead_letter(self, letter: DeadLetter, key: bytes | None) -> None:
        """From `tts.dlq`. A dead completion is the end of its callback."""
        self._dead_letters[str(letter.code)] += 1
        if letter.topic == topics.REQUESTS:
            self.arrivals.dead(letter.partition, letter.offset, letter.value_sha256)
        if letter.topic == topics.COMPLETED and key:
            entry = self._entries.get(key.decode("utf-8", "replace"))
            if entry is not None and entry.delivery is None:
                entry.delivery = DeliveryState.DEAD_LETTERED

    def expected_objects(self) -> dict[str, str]:
        """Request id to the URL of its audio, for every completed request that has one."""
        return {request_id: entry.audio.url for request_id, entry in self._entries.items() if entry.audio}

    def report(self, objects: Mapping[str, ObjectFacts | None], *, now: datetime) -> Report:
        """Judge.

        Args:
            objects: by request id, what the bucket holds at the place of its audio; None or absent: nothing.
            now: requests that must have an end only later are open.
        """
        still_open, lost = self.arrivals.without_trace(now)
        findings: dict[Finding, list[str]] = {Finding.LOST: lost} if lost else {}
        for request_id, entry in sorted(self._entries.items()):
            if self._beyond(entry):
                continue
            kinds = _judged(entry, objects.get(request_id))
            if {Finding.LOST, Finding.UNFINISHED} & set(kinds) and entry.until and now < entry.until + _GRACE:
                still_open.append(request_id)
                continue
            for kind in kinds:
                findings.setdefault(kind, []).append(request_id)
        return Report(self._counts(objects), findings, tuple(still_open))

    def _beyond(self, entry: _Entry) -> bool:
        """Whether some of what was written about it may be kept no longer."""
        return self._kept_since is not None and entry.seen is not None and entry.seen < self._kept_since

    def _entry(self, request_id: str) -> _Entry:
        return self._entries.setdefault(request_id, _Entry())

    def _counts(self, objects: Mapping[str, ObjectFacts | None]) -> dict[str, int]:
        entries = self._entries.values()
        ends = Counter(state for entry in entries for state in entry.ends)
        deliveries = Counter(entry.delivery for entry in entries if entry.callback)
        return {
            "requests": len(self._entries),
            **{str(state): ends[state] for state in State if state.terminal},
            "cached": sum(entry.cached for entry in entries),
            "repeated_ends": self._repeated,
            "audio_checked": sum(1 for found in objects.values() if found is not None),
            "callbacks": sum(entry.callback for entry in entries),
            "delivered": deliveries[DeliveryState.DELIVERED],
            "callbacks_dead_lettered": deliveries[DeliveryState.DEAD_LETTERED],
            "dead_letters": self._dead_letters.total(),
            "not_judged": sum(map(self._beyond, entries)),
        }


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _expected(audio: AudioInfo) -> ExpectedObject:
    return ExpectedObject(audio.url, audio.bytes, audio.sha256)


def _judged(entry: _Entry, found: ObjectFacts | None) -> list[Finding]:
    findings = []
    said = {state for state in entry.states if state.terminal}
    match len(said | entry.ends):
        case 0:
            findings.append(Finding.UNFINISHED if entry.heard else Finding.LOST)
        case 1 if len(entry.contents) > 1:
            findings.append(Finding.CONTRADICTORY)
        case 1:
            if not said:
                findings.append(Finding.STATUS_MISSING)
            if not entry.ends:
                findings.append(Finding.COMPLETION_MISSING)
        case _:
            findings.append(Finding.CONTRADICTORY)
    if State.COMPLETED in entry.ends:
        findings += _object_findings(entry.audio, found)
    if entry.callback and entry.ends and entry.delivery is None:
        findings.append(Finding.UNDELIVERED)
    return findings


def _object_findings(expected: ExpectedObject | None, found: ObjectFacts | None) -> list[Finding]:
    if expected is None or found is None:
        return [Finding.OBJECT_MISSING]
    same = found.bytes == expected.bytes and found.sha256 in {None, expected.sha256}
    return [] if same else [Finding.OBJECT_DAMAGED]
