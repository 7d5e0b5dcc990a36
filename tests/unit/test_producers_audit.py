from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.arrivals import Arrival
from producers.audit import Finding, Ledger, ObjectFacts
from schemas import topics
from schemas.codes import AudioFormat, ErrorCode, Priority, State
from schemas.completions import AudioInfo, CompletionData, RequestStatus
from schemas.dead_letters import dead_letter
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.requests import SpeechSpec, SynthesisAdmitted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
SHA = "ab" * 32
AUDIO = AudioInfo(url="http://s3/b/k", format=AudioFormat.WAV, bytes=9, sha256=SHA, duration_s=1, sample_rate=24_000)
STORED = ObjectFacts(9, SHA)
Event = Callable[[Ledger], None]


def admitted(request_id: str, *, callback: bool = False) -> Event:
    event = SynthesisAdmitted(
        request_id=request_id,
        fingerprint="0" * 64,
        spec=SpeechSpec(text="x", voice="v", language="zh", dialect="mandarin"),
        format=AudioFormat.WAV,
        priority=Priority.BULK,
        callback_url="http://x/" if callback else None,
        accepted_at=NOW,
        expires_at=NOW,
    )
    return lambda ledger: ledger.admitted(event)


def status(request_id: str, state: State) -> Event:
    event = RequestStatus(request_id=request_id, state=state, percent=0, at=NOW)
    return lambda ledger: ledger.status(event)


def completed(request_id: str, state: State = State.COMPLETED, *, callback: bool = False) -> Event:
    good = state is State.COMPLETED
    data = CompletionData.model_validate(
        {"request_id": request_id, "status": str(state), "audio": AUDIO.model_dump() if good else None}
    )
    return lambda ledger: ledger.completed(data, callback=callback)


def delivery(request_id: str, state: DeliveryState) -> Event:
    event = DeliveryAttempted(request_id=request_id, webhook_id="w", attempt=1, state=state, at=NOW, host="h")
    return lambda ledger: ledger.delivery(event)


def good_road(request_id: str) -> list[Event]:
    return [
        admitted(request_id, callback=True),
        status(request_id, State.ACCEPTED),
        status(request_id, State.QUEUED),
        status(request_id, State.COMPLETED),
        completed(request_id, callback=True),
        delivery(request_id, DeliveryState.RETRYING),
        delivery(request_id, DeliveryState.DELIVERED),
    ]


def findings(events: list[Event], facts: ObjectFacts | None = STORED) -> dict[Finding, list[str]]:
    ledger = Ledger()
    for event in events:
        event(ledger)
    return dict(ledger.report(dict.fromkeys(ledger.expected_objects(), facts), now=LATER).findings)


@given(st.data())
def test_order_and_repeats_change_nothing(data: st.DataObject) -> None:
    events = [*good_road("r1"), *good_road("r2"), status("r3", State.FAILED), completed("r3", State.FAILED)]
    repeated = data.draw(st.lists(st.sampled_from(events)))
    assert findings(data.draw(st.permutations([*events, *repeated]))) == {}


@given(st.integers(0, len(good_road("r")) - 1))
def test_what_is_left_out_of_a_road_is_found(missing: int) -> None:
    """Only steps that another event proves can be missing unnoticed."""
    events = good_road("r")
    del events[missing]
    expected = {3: Finding.STATUS_MISSING, 4: Finding.COMPLETION_MISSING, 6: Finding.UNDELIVERED}.get(missing)
    assert findings(events) == ({expected: ["r"]} if expected else {})


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([status("r", State.ACCEPTED)], Finding.UNFINISHED),
        ([admitted("r")], Finding.UNFINISHED),
        ([status("r", State.FAILED), completed("r")], Finding.CONTRADICTORY),
        ([status("r", State.FAILED), status("r", State.EXPIRED), completed("r", State.FAILED)], Finding.CONTRADICTORY),
        ([completed("r", State.CANCELLED)], Finding.STATUS_MISSING),
        ([status("r", State.CANCELLED)], Finding.COMPLETION_MISSING),
        ([status("r", State.FAILED), completed("r", State.FAILED, callback=True)], Finding.UNDELIVERED),
    ],
)
def test_what_is_wrong_is_named(events: list[Event], expected: Finding) -> None:
    assert findings(events) == {expected: ["r"]}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (None, Finding.OBJECT_MISSING),
        (ObjectFacts(8, SHA), Finding.OBJECT_DAMAGED),
        (ObjectFacts(9, "00" * 32), Finding.OBJECT_DAMAGED),
        (ObjectFacts(9, None), None),
    ],
)
def test_the_object_must_agree_with_its_completion(facts: ObjectFacts | None, expected: Finding | None) -> None:
    assert findings(good_road("r"), facts) == ({expected: ["r"]} if expected else {})


def test_a_dead_lettered_completion_is_the_end_of_its_callback() -> None:
    letter = dead_letter(ErrorCode.INTERNAL, "gone", stage="notifier", topic=topics.COMPLETED, partition=0, offset=0)
    events = [*good_road("r")[:5], lambda ledger: ledger.dead_letter(letter, b"r")]
    assert findings(events) == {}


def requested(request_id: str, until: datetime = NOW) -> Event:
    def take(ledger: Ledger) -> None:
        ledger.written(request_id, NOW)
        ledger.requested(request_id, until)

    return take


def test_a_request_that_nothing_was_heard_of_is_lost_once_its_time_is_over() -> None:
    ledger = Ledger()
    requested("gone")(ledger)
    requested("waiting", LATER)(ledger)
    for event in (requested("read", LATER), status("read", State.ACCEPTED)):
        event(ledger)
    report = ledger.report({}, now=NOW + timedelta(minutes=30))
    assert (report.findings, report.open) == ({Finding.LOST: ["gone"]}, ("read", "waiting"))
    assert findings([requested("gone"), *good_road("r")]) == {Finding.LOST: ["gone"]}
    assert findings([requested("r"), *good_road("r")]) == {}


def test_what_is_older_than_what_all_topics_keep_is_not_judged() -> None:
    ledger = Ledger()
    requested("old")(ledger)
    ledger.kept_since(NOW + timedelta(seconds=1))
    report = ledger.report({}, now=LATER)
    assert (report.findings, report.counts["not_judged"]) == ({}, 1)


def test_two_ends_with_different_audio_contradict_each_other() -> None:
    other = AUDIO.model_copy(update={"sha256": "cd" * 32})
    data = CompletionData(request_id="r", status="completed", audio=other)
    events = [*good_road("r"), lambda ledger: ledger.completed(data, callback=True)]
    assert findings(events, ObjectFacts(9, None)) == {Finding.CONTRADICTORY: ["r"]}


def test_a_record_without_an_id_needs_an_id_or_a_dead_letter() -> None:
    def arrivals(*offsets: int) -> Ledger:
        ledger = Ledger()
        for offset in offsets:
            ledger.arrivals.came(Arrival(0, offset, b"%d" % offset, NOW))
        return ledger

    ledger = arrivals(1, 2, 3, 4)
    ledger.arrivals.moved(Arrival(0, 1, b"1", NOW).moved_digest)
    letter = dead_letter(ErrorCode.INVALID_REQUEST, "no", stage="d", topic=topics.REQUESTS, partition=0, offset=2)
    ledger.dead_letter(letter, None)
    ledger.dead_letter(replace(letter, partition=7, value_sha256=Arrival(0, 3, b"3", NOW).sha256), None)
    assert ledger.report({}, now=LATER).findings == {Finding.LOST: ["tts.requests/0:4"]}
    assert ledger.report({}, now=NOW - timedelta(1)).open == ("tts.requests/0:4",)


def test_counts() -> None:
    ledger = Ledger()
    letter = dead_letter(ErrorCode.INVALID_REQUEST, "no", stage="admit", topic=topics.REQUESTS, partition=0, offset=0)
    events = [*good_road("r1"), *good_road("r1"), status("r2", State.FAILED), completed("r2", State.FAILED)]
    for event in events:
        event(ledger)
    ledger.dead_letter(letter, None)
    report = ledger.report({"r1": ObjectFacts(9, SHA)}, now=LATER)
    assert report.good
    assert report.as_json() == {
        "ok": True,
        "requests": 2,
        "completed": 1,
        "failed": 1,
        "cancelled": 0,
        "expired": 0,
        "cached": 0,
        "repeated_ends": 2,
        "audio_checked": 1,
        "callbacks": 1,
        "delivered": 1,
        "callbacks_dead_lettered": 0,
        "dead_letters": 1,
        "not_judged": 0,
        "open": [],
        "findings": {},
    }
