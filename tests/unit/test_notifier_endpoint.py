"""How an endpoint that does not answer is left alone, and comes back."""

from notifier.attempt import Answer, AttemptResult
from notifier.endpoint import Breaker, Endpoint, EndpointLimits

LIMITS = EndpointLimits(max_window=16, breaker_failures=3, open_s=1, max_open_s=4, patience_s=5)
GOOD = AttemptResult(Answer.SUCCESS, status=200, latency_s=0.01)
HANGS = AttemptResult(Answer.TIMEOUT, latency_s=5.0)


def test_opens_after_failures_in_a_row_and_probes_one_at_a_time() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    assert [endpoint.note(HANGS, 5.0) for _ in range(3)] == [False, False, True]
    assert endpoint.breaker(5.5) is Breaker.OPEN
    assert endpoint.window(5.5) == 0
    assert endpoint.breaker(6.0) is Breaker.PROBING
    assert endpoint.window(6.0) == 1


def test_a_success_in_between_counts_anew() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    assert not any(endpoint.note(result, 0.1) for result in (HANGS, HANGS, GOOD, HANGS, HANGS))


def test_failed_probes_double_the_pause_up_to_the_bound() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    for _ in range(3):
        endpoint.note(HANGS, 0.0)
    now, pauses = 1.0, []
    for _ in range(4):
        assert endpoint.note(HANGS, now)
        pauses.append(next(s for s in range(1, 9) if endpoint.breaker(now + s) is Breaker.PROBING))
        now += pauses[-1]
    assert pauses == [2, 4, 4, 4]
    endpoint.note(GOOD, now)
    assert endpoint.breaker(now) is Breaker.CLOSED


def test_failures_of_attempts_begun_before_it_opened_do_not_lengthen_the_pause() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    for _ in range(3):
        endpoint.note(HANGS, 0.0)
    assert not endpoint.note(HANGS, 0.5)
    assert endpoint.breaker(1.0) is Breaker.PROBING


def test_a_refusal_of_one_delivery_is_a_sign_of_life() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    gone = AttemptResult(Answer.CLIENT_ERROR, status=404)
    assert not any(endpoint.note(gone, 0.0) for _ in range(10))


def test_429_is_none() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    busy = AttemptResult(Answer.CLIENT_ERROR, status=429)
    assert any(endpoint.note(busy, 0.0) for _ in range(3))


def test_patience_that_is_asked_for_closes_the_road_for_a_bounded_while() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    busy = AttemptResult(Answer.CLIENT_ERROR, status=429, retry_after_s=2.0)
    assert endpoint.note(busy, 0.0)
    assert endpoint.breaker(1.9) is Breaker.OPEN
    assert endpoint.put_off_s(0, 0.0) > 2.0
    assert endpoint.breaker(2.0) is Breaker.PROBING
    # One receiver of many behind a host may not close it for a day.
    endpoint.note(AttemptResult(Answer.SERVER_ERROR, status=503, retry_after_s=86_400.0), 2.0)
    assert endpoint.breaker(5.9) is Breaker.OPEN
    assert endpoint.breaker(6.0) is Breaker.PROBING
    endpoint.note(GOOD, 6.0)
    assert endpoint.breaker(6.0) is Breaker.CLOSED


def test_what_we_refuse_is_not_its_failure() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    refused = AttemptResult(Answer.REFUSED, error="its name leads to an address that is private")
    assert not any(endpoint.note(refused, 0.0) for _ in range(10))
    assert endpoint.breaker(0.0) is Breaker.CLOSED


def test_no_more_wait_in_memory_than_can_start_soon() -> None:
    limits = EndpointLimits(max_window=16, attempt_s=10)
    assert Endpoint(limits, 0.0).room(0.0) == 10_000
    assert Endpoint(limits, 0.0, rate_per_s=3).room(0.0) == 30
    assert Endpoint(limits, 0.0, rate_per_s=0.01).room(0.0) == 1
    slow = Endpoint(limits, 0.0)
    slow.note(AttemptResult(Answer.SUCCESS, status=200, latency_s=8.0), 8.0)
    assert slow.room(8.0) == 20  # 16 at once, 8 s each


def test_answers_widen_the_window_and_long_silence_narrows_it() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    assert endpoint.window(0) == 8
    for _ in range(20):
        endpoint.note(GOOD, 0.1)
    assert endpoint.window(0.1) == 16
    endpoint.note(HANGS, 1.0)  # answered a moment ago
    assert endpoint.window(1.0) == 16
    endpoint.note(HANGS, 5.2)
    assert endpoint.window(5.2) == 8


def test_turns_are_spaced_by_what_the_endpoint_can_take() -> None:
    fast = Endpoint(LIMITS, 0.0)
    fast.note(GOOD, 0.0)
    turns = [fast.put_off_s(500, 0.0) for _ in range(1_000)]
    assert turns == sorted(turns)
    assert turns[0] >= 0.5
    assert turns[-1] < 2.0


def test_turns_begin_after_the_pause() -> None:
    endpoint = Endpoint(LIMITS, 0.0)
    for _ in range(3):
        endpoint.note(HANGS, 0.0)
    assert endpoint.put_off_s(0, 0.25) > 0.75


def test_a_stranger_that_stays_silent_gets_less_credit() -> None:
    endpoint = Endpoint(EndpointLimits(attempt_s=10), 0.0)
    endpoint.started(0.0)
    assert endpoint.room(0.4) == 10_000
    assert endpoint.room(0.6) == 2_000
    endpoint.note(GOOD, 0.7)
    assert endpoint.room(60.0) == 10_000  # nothing runs, so nothing is silent
    # Nor is what comes now put behind what was put off while it was in doubt.
    assert endpoint.put_off_s(0, 0.7) < 0.01


def test_one_that_answered_and_stays_silent_gets_less_credit_before_any_attempt_of_it_fails() -> None:
    endpoint = Endpoint(EndpointLimits(max_window=64, attempt_s=10), 0.0)
    endpoint.started(0.0)
    endpoint.note(GOOD, 0.1)
    endpoint.started(1.0)
    assert endpoint.room(1.4) == 10_000
    assert endpoint.room(5.0) == 160  # 64 at once, each taking 4 s at least


def test_one_that_answers_wants_what_it_can_start_soon() -> None:
    limits = EndpointLimits(max_window=16, attempt_s=10, breaker_failures=3)
    endpoint = Endpoint(limits, 0.0)
    assert endpoint.appetite(0.0) == 0  # a stranger is in doubt
    endpoint.note(GOOD, 0.1)
    assert endpoint.appetite(0.1) == 1_000
    endpoint.note(HANGS, 1.0)
    assert endpoint.appetite(1.0) == 0
    endpoint.note(AttemptResult(Answer.SUCCESS, status=200, latency_s=50.0), 5.0)
    assert endpoint.appetite(5.0) == 16  # a whole window, though it can start fewer in a second
    for _ in range(3):
        endpoint.note(HANGS, 6.0)
    assert endpoint.appetite(6.0) == 0


def test_one_with_a_rate_wants_no_more_than_may_wait_for_it() -> None:
    endpoint = Endpoint(EndpointLimits(max_window=64, attempt_s=10), 0.0, rate_per_s=2)
    endpoint.note(GOOD, 0.1)
    assert endpoint.appetite(0.1) == endpoint.room(0.1) == 20
