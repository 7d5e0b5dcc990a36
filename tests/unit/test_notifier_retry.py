"""What follows from each kind of answer."""

from datetime import UTC, datetime

import pytest

from notifier.attempt import Answer, AttemptResult, answer_of
from notifier.retry import RetryPolicy, decide, retry_after_s
from notifier.settings import NotifierSettings
from schemas.deliveries import DeliveryState

POLICY = RetryPolicy((0.0, 5.0, 300.0), jitter=0.2, max_retry_after_s=3_600)
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def failed(status: int, **more: object) -> AttemptResult:
    return AttemptResult(answer_of(status), status=status, error=f"HTTP status {status}", **more)  # type: ignore[arg-type]


def test_success_ends_it() -> None:
    assert decide(AttemptResult(Answer.SUCCESS, status=200), 1, POLICY, 0).state is DeliveryState.DELIVERED


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 408, 422, 429, 500, 503])
def test_every_other_status_is_tried_again(status: int) -> None:
    assert decide(failed(status), 1, POLICY, 0).delay_s == 5.0


def test_the_schedule_is_followed_with_jitter_on_top() -> None:
    assert decide(failed(500), 2, POLICY, 0.5).delay_s == pytest.approx(330.0)


def test_the_schedule_ends() -> None:
    decision = decide(failed(500), 3, POLICY, 0)
    assert decision.state is DeliveryState.DEAD_LETTERED
    assert decision.delay_s is None
    assert decision.reason == "not delivered in 3 attempts; the last: HTTP status 500"


@pytest.mark.parametrize(
    "result",
    [
        failed(410),
        failed(503, aborted=True),
        AttemptResult(Answer.REFUSED, error="it carries credentials"),
    ],
)
def test_some_answers_end_it_at_once(result: AttemptResult) -> None:
    assert decide(result, 1, POLICY, 0).state is DeliveryState.DEAD_LETTERED


def test_a_success_that_asks_for_no_more_is_a_success() -> None:
    result = AttemptResult(Answer.SUCCESS, status=200, aborted=True)
    assert decide(result, 1, POLICY, 0).state is DeliveryState.DELIVERED


@pytest.mark.parametrize(("asked", "delay"), [(60.0, 60.0), (1.0, 5.0), (10_000.0, 3_600.0)])
def test_retry_after_lengthens_within_bounds(asked: float, delay: float) -> None:
    assert decide(failed(429, retry_after_s=asked), 1, POLICY, 0).delay_s == delay


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 12:01:00 -0000", 60.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("١٢", None),
        ("9" * 5_000, 999_999_999_999.0),
        ("Mon, 23 Nov 99999999999999999999 12:01:00 GMT", None),
        ("Mon, 23 Nov 2026 12:01:00 +99999999999999999999", None),
        ("Mon, 31 Dec 9999 23:59:59 -2359", 251_606_951_939.0),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


def test_the_default_schedule_is_that_of_the_specification() -> None:
    hours = [delay / 3600 for delay in NotifierSettings().retry_delays_s[4:]]
    assert NotifierSettings().retry_delays_s[:4] == (0, 5, 300, 1800)
    assert hours == [2, 5, 10, 14, 20, 24]
