"""What is chosen from the delivery log is what the last attempts say, however little of the log is held."""

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery import Delivery
from notifier.history import Choice, Newest
from notifier.named_endpoint import NamedEndpoint
from notifier.replay import Attempted, Missed
from notifier.signing import webhook_id
from schemas.base import utc_now
from schemas.deliveries import DeliveryAttempted, DeliveryProgress, DeliveryState

_BEGAN = utc_now()
_IDS = ("r-1", "r-2", "r-3")
_RECEIVERS = (None, "crm", "lake")
_PROGRESS = DeliveryProgress(attempts=0, due_ms=0, release_ms=0, first_ms=0, partition=0, offset=0)


def attempted(number: int, request_id: str, endpoint: str | None, state: DeliveryState) -> DeliveryAttempted:
    return DeliveryAttempted(
        request_id=request_id,
        webhook_id=webhook_id(request_id, endpoint),
        attempt=1,
        state=state,
        at=_BEGAN + timedelta(seconds=number),
        host="hooks.example.com:443",
        endpoint=endpoint,
    )


def completion(
    request_id: str, kind: str = "speech.completed", callback: str = "https://hooks.example.com/"
) -> Delivery:
    body = f'{{"type": "{kind}"}}'.encode()
    return Delivery(request_id, body, callback, (), None, _PROGRESS, webhook_id(request_id))


_logs = st.lists(
    st.tuples(st.sampled_from(_IDS), st.sampled_from(_RECEIVERS), st.sampled_from(DeliveryState)), max_size=20
).map(lambda rows: [attempted(number, *row) for number, row in enumerate(rows)])
_moments = st.none() | st.integers(0, 20).map(lambda number: _BEGAN + timedelta(seconds=number))
_choices = st.builds(
    Choice,
    st.none() | st.frozensets(st.sampled_from(_IDS), min_size=1),
    st.none() | st.sampled_from(DeliveryState),
    st.none() | st.sampled_from(("crm", "hooks.example.com:443")),
    _moments,
    _moments,
)


def last_of(log: list[DeliveryAttempted]) -> dict[tuple[str, str | None], DeliveryAttempted]:
    return {(event.request_id, event.endpoint): event for event in log}


@given(_logs, _choices, st.integers(1, 4), st.integers(1, 5))
def test_the_newest_are_found_from_the_end(log: list[DeliveryAttempted], choice: Choice, limit: int, page: int) -> None:
    newest, left = Newest(choice, limit), list(log)
    while left:
        for event in reversed(left[-page:]):
            newest.hear(event)
        left = left[:-page]
        if newest.complete(int(left[-1].at.timestamp() * 1000) if left else 0):
            break
    chosen = sorted((e for e in last_of(log).values() if choice.takes(e)), key=lambda event: event.at)
    assert newest.chosen == chosen[-limit:]


@given(_logs, _choices)
def test_a_replay_goes_by_the_last_attempt_of_each_delivery(log: list[DeliveryAttempted], choice: Choice) -> None:
    selection = Attempted(choice)
    for event in log:
        selection.hear(event)
    taken = {name: event for name, event in last_of(log).items() if choice.takes(event)}
    retrying = {name for name, event in taken.items() if event.state is DeliveryState.RETRYING}
    expected = taken.keys() - retrying
    if choice.request_ids and not choice.by_history:
        expected |= {(name, None) for name in choice.request_ids} - retrying
    assert selection.retrying == {name for name, _ in retrying}
    given_ = {(name, receiver) for name in _IDS for receiver in selection.receivers(completion(name), _BEGAN)}
    assert given_ == expected
    assert not any(selection.receivers(completion(name), _BEGAN) for name in _IDS)  # an end that stands there twice
    assert selection.missing == (choice.request_ids or set()) - {name for name, _ in expected | retrying}


@given(_logs, _moments, _moments)
def test_what_an_endpoint_missed_is_what_it_wants_and_was_never_given(
    log: list[DeliveryAttempted], since: Any, until: Any
) -> None:
    choice = Choice(endpoint="crm", since=since, until=until)
    crm = NamedEndpoint(url="https://crm.example.com/", events=("speech.completed",))
    selection = Missed("crm", crm, choice)
    for event in log:
        selection.hear(event)
    theirs = [event for event in log if event.endpoint == "crm"]
    delivered = {event.request_id for event in theirs if event.state is DeliveryState.DELIVERED}
    under_way = {
        name
        for (name, receiver), event in last_of(theirs).items()
        if receiver == "crm" and event.state is DeliveryState.RETRYING
    }
    at = _BEGAN + timedelta(seconds=10)
    wanted = set(_IDS) - delivered - under_way if choice.spans(at) else set()
    assert {name for name in _IDS if selection.receivers(completion(name), at) == ["crm"]} == wanted
    assert not any(selection.receivers(completion(name), at) for name in _IDS)
    assert selection.retrying == under_way - delivered


def test_an_endpoint_missed_only_the_kinds_it_wants_and_also_what_has_no_callback() -> None:
    crm = NamedEndpoint(url="https://crm.example.com/", events=("speech.completed",))
    selection = Missed("crm", crm, Choice(endpoint="crm"))
    assert selection.receivers(completion("r-1", "speech.failed"), _BEGAN) == []
    assert selection.receivers(completion("r-2", callback=""), _BEGAN) == ["crm"]


def test_a_request_without_callback_has_nobody_to_be_replayed_to() -> None:
    selection = Attempted(Choice(frozenset({"r-1"})))
    assert selection.receivers(completion("r-1", callback=""), _BEGAN) == []
    assert selection.missing == {"r-1"}
