"""Where and how long a delivery waits: never early, never for ever, in few moves."""

import itertools
import sys
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifier.attempt import Answer, AttemptResult
from notifier.retry import RetryPolicy, decide, retry_after_s
from notifier.tiers import HOLDS_S, stay
from notifier.waiting_room import WaitingRoom
from schemas.deliveries import DeliveryState
from schemas.topics import DELIVERY_RETRIES

DAY_MS = 86_400_000
NOW = 1_800_000_000_000


@given(st.integers(-DAY_MS, 7 * DAY_MS))
def test_stays_lead_exactly_to_the_due_moment(remaining_ms: int) -> None:
    now, due, moves = NOW, NOW + remaining_ms, 0
    while now < due:
        step = stay(now, due)
        assert now < step.release_ms <= due
        now, moves = step.release_ms, moves + 1
    assert now == max(NOW, due)
    # A day is twelve of the longest holds; what is left over descends through the shorter ones.
    assert moves <= remaining_ms / 7_200_000 + 4 + 6 + 10 + 6 + 1 if remaining_ms > 0 else moves == 0


@given(st.integers(0, 7 * DAY_MS))
def test_a_tier_mixes_only_similar_waits(remaining_ms: int) -> None:
    step = stay(NOW, NOW + remaining_ms)
    hold_ms = HOLDS_S[DELIVERY_RETRIES.index(step.topic)] * 1000
    assert hold_ms <= step.release_ms - NOW <= max(hold_ms * 1.25, 5_000)


@given(st.lists(st.integers(0, 1_000)), st.integers(0, 1_000), st.integers(0, 50))
def test_a_room_releases_what_is_due_in_order_and_keeps_the_rest(moments: list[int], now: int, at_most: int) -> None:
    room: WaitingRoom[int] = WaitingRoom()
    for moment in moments:
        room.add(moment, moment)
    out = list(room.released(now, at_most))
    assert out == sorted(m for m in moments if m <= now)[:at_most]
    assert len(room) == len(moments) - len(out)
    assert room.next_ms() == min(sorted(moments)[len(out) :], default=None)


steps = st.lists(
    st.tuples(st.just("add"), st.integers(0, 100), st.sampled_from([None, "a", "b"]))
    | st.tuples(st.just("call"), st.integers(0, 5), st.sampled_from(["a", "b"]))
    | st.tuples(st.just("release"), st.integers(0, 100), st.integers(0, 5))
)


@given(steps)
def test_a_line_calls_up_its_own_in_order_and_nobody_comes_twice(steps: list[tuple[str, int, Any]]) -> None:
    room: WaitingRoom[int] = WaitingRoom()
    model: list[tuple[int, int, str | None]] = []  # moment, thing, line; by arrival
    for thing, (step, number, more) in enumerate(steps):
        if step == "add":
            room.add(thing, number, more)
            model.append((number, thing, more))
        elif step == "call":
            wanted = [entry for entry in model if entry[2] == more][:number]
            assert list(room.called_up(more, number)) == [entry[1] for entry in wanted]
            model = [entry for entry in model if entry not in wanted]
        else:
            due = sorted(entry for entry in model if entry[0] <= number)[:more]
            assert list(room.released(number, more)) == [entry[1] for entry in due]
            model = [entry for entry in model if entry not in due]
        assert len(room) == len(model)
        assert set(room.lines) == {line for _, _, line in model if line}
        assert room.next_ms() == min((moment for moment, _, _ in model), default=None)


def test_moments_of_what_was_called_up_do_not_pile_up() -> None:
    room: WaitingRoom[int] = WaitingRoom()
    for thing in range(50_000):
        room.add(thing, NOW + DAY_MS, "a")
        assert list(room.called_up("a", 1)) == [thing]
    assert len(room) == 0
    assert sys.getsizeof(room._heap) < 100_000


answers = st.builds(
    AttemptResult,
    answer=st.sampled_from(Answer),
    retry_after_s=st.none() | st.floats(0, 1e9),
    aborted=st.booleans(),
)
policies = st.builds(
    RetryPolicy,
    delays_s=st.lists(st.floats(0, 1e5), min_size=1, max_size=12).map(tuple),
    jitter=st.floats(0, 1),
    max_retry_after_s=st.floats(0, 1e5),
)


@given(st.lists(answers, min_size=12, max_size=12), policies, st.floats(0, 1, exclude_max=True))
def test_every_delivery_ends_within_its_schedule(
    results: list[AttemptResult], policy: RetryPolicy, spread: float
) -> None:
    waited = 0.0
    for attempts, result in zip(itertools.count(1), results, strict=False):
        decision = decide(result, attempts, policy, spread)
        assert (decision.delay_s is not None) == (decision.state is DeliveryState.RETRYING)
        if decision.delay_s is None:
            break
        waited += decision.delay_s
    assert decision.state is not DeliveryState.RETRYING
    assert attempts <= len(policy.delays_s)
    assert waited <= policy.span_s * 1.000001 + len(policy.delays_s) * policy.max_retry_after_s


pieces = st.sampled_from(
    ["Mon", "Nov", "23", "2026", "12:01:00", "GMT", "+0000", "-9999999999", "9" * 20, "0", ",", " ", ":"]
)


@given(st.text(max_size=60) | st.lists(pieces, max_size=12).map(" ".join))
def test_whatever_a_receiver_asks_for_is_read_or_left(value: str) -> None:
    seconds = retry_after_s(value, datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
    assert seconds is None or seconds >= 0
