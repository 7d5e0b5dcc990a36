"""A request's webhooks are remembered alike in whatever order, and however often, their attempts are read."""

from collections import defaultdict
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.deliveries import DeliveryAttempted, DeliveryState
from synth_consumer.dedup.deliveries import RECEIVERS_KEPT, Memory, delivery_view, on_attempted, on_delivery_due
from synth_consumer.dedup.rows import DeliveryRow, moment
from synth_consumer.dedup.steps import Step

_MEMORY = Memory(attempts=3, retention_s=1_000.0)
_BEGAN = 1_000_000.0


class Rows:
    """The table in memory; rows go through their bytes, as through a changelog."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def delivery(self, request_id: str) -> DeliveryRow | None:
        value = self.kept.get(request_id.encode())
        return DeliveryRow.from_bytes(value) if value else None

    def note(self, event: DeliveryAttempted, *, now: float = _BEGAN) -> Step:
        step = on_attempted(self, event, _MEMORY, now=now)
        for write in step.writes:
            assert write.table == "deliveries"
            if write.row is None:
                self.kept.pop(write.key, None)
            else:
                self.kept[write.key] = write.row.to_bytes()
        return step


def attempted(at_s: float, receiver: str = "crm", attempt: int = 1, next_s: float | None = None) -> DeliveryAttempted:
    """An attempt `at_s` seconds after the beginning."""
    at = moment(_BEGAN + at_s)
    return DeliveryAttempted(
        request_id="r-1",
        webhook_id=f"msg_{receiver}",
        attempt=attempt,
        state=DeliveryState.RETRYING if next_s is not None else DeliveryState.DELIVERED,
        at=at,
        host="hooks.example.com:443",
        endpoint=receiver,
        http_status=503 if next_s is not None else 204,
        latency_ms=7,
        error="it answered 503" if next_s is not None else None,
        next_attempt_at=at + timedelta(seconds=next_s) if next_s is not None else None,
    )


_events = st.lists(
    st.builds(
        attempted,
        st.integers(0, 40).map(float),
        st.sampled_from(("crm", "lake", "callback")),
        st.integers(1, 4),
        st.none() | st.integers(0, 500).map(float),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda event: (event.at, event.attempt, event.webhook_id),
)


@given(_events, st.randoms(use_true_random=False))
def test_order_and_repeats_change_nothing(events: list[DeliveryAttempted], chance: object) -> None:
    once, often = Rows(), Rows()
    for event in events:
        once.note(event)
    again = events * 2
    chance.shuffle(again)  # type: ignore[attr-defined]
    for event in again:
        often.note(event)
    assert once.kept == often.kept


@given(_events)
def test_the_newest_attempts_are_kept_for_each_receiver(events: list[DeliveryAttempted]) -> None:
    rows, theirs = Rows(), defaultdict(list)
    for event in events:
        rows.note(event)
        theirs[event.webhook_id].append((event.at, event.attempt))
    row = rows.delivery("r-1")
    assert row is not None
    found = {
        name: [(moment(attempt.at), attempt.attempt) for attempt in receiver.attempts]
        for name, receiver in row.receivers.items()
    }
    assert found == {name: sorted(each)[-_MEMORY.attempts :] for name, each in theirs.items()}


@given(_events, st.integers(0, 3_000))
def test_a_row_goes_when_its_time_has_come_and_stays_away(events: list[DeliveryAttempted], later: int) -> None:
    rows = Rows()
    for event in events:
        rows.note(event)
    row = rows.delivery("r-1")
    assert row is not None
    last = max(event.next_attempt_at or event.at for event in events).timestamp()
    now = _BEGAN + later
    step = on_delivery_due(b"r-1", row, now=now)
    assert (step is not None) == (now >= last + _MEMORY.retention_s)
    if step is not None:
        assert [(write.table, write.key, write.row) for write in step.writes] == [("deliveries", b"r-1", None)]
        # What is read again from the log's beginning does not bring it back.
        late = Rows()
        assert {late.note(event, now=now).kind for event in events} == {"ignored"}


def test_receivers_of_a_request_are_bounded_and_the_longest_silent_goes() -> None:
    rows = Rows()
    for number in range(RECEIVERS_KEPT + 1):
        rows.note(attempted(float(number), f"e{number}"))
    rows.note(attempted(0.0, "e0"))
    row = rows.delivery("r-1")
    assert row is not None
    assert row.receivers.keys() == {f"msg_e{number}" for number in range(1, RECEIVERS_KEPT + 1)}


def test_the_view_shows_every_attempt_for_each_receiver() -> None:
    rows = Rows()
    rows.note(attempted(0.0, "crm", 1, next_s=5.0))
    rows.note(attempted(1.0, "lake", 1))
    rows.note(attempted(5.5, "crm", 2))
    row = rows.delivery("r-1")
    assert row is not None
    view = delivery_view("r-1", row)
    assert view["request_id"] == "r-1"
    crm, lake = view["deliveries"]
    assert (crm["webhook_id"], crm["endpoint"], crm["host"], crm["state"]) == (
        "msg_crm",
        "crm",
        "hooks.example.com:443",
        DeliveryState.DELIVERED,
    )
    assert crm["attempts"] == [
        {
            "attempt": 1,
            "at": "1970-01-12T13:46:40+00:00",
            "state": "retrying",
            "http_status": 503,
            "latency_ms": 7,
            "error": "it answered 503",
            "next_attempt_at": "1970-01-12T13:46:45+00:00",
        },
        {
            "attempt": 2,
            "at": "1970-01-12T13:46:45.500000+00:00",
            "state": "delivered",
            "http_status": 204,
            "latency_ms": 7,
            "error": None,
            "next_attempt_at": None,
        },
    ]
    assert (lake["webhook_id"], len(lake["attempts"])) == ("msg_lake", 1)


def test_the_words_of_an_error_are_bounded() -> None:
    rows = Rows()
    rows.note(attempted(0.0, next_s=1.0).model_copy(update={"error": "x" * 10_000}))
    row = rows.delivery("r-1")
    assert row is not None
    assert len(row.receivers["msg_crm"].attempts[0].error or "") == 200
