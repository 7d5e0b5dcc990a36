"""Whether and when a delivery is tried again. Pure."""

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from notifier.attempt import Answer, AttemptResult
from schemas.deliveries import DeliveryState


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The schedule."""

    delays_s: tuple[float, ...]
    """Before each attempt, the first included."""
    jitter: float = 0.0
    """Share of a delay that is drawn on top of it."""
    max_retry_after_s: float = 86_400.0

    @property
    def span_s(self) -> float:
        """The longest the whole schedule can take, attempts themselves aside."""
        return sum(self.delays_s) * (1 + self.jitter)


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What becomes of a delivery after an attempt."""

    state: DeliveryState
    reason: str = ""
    """Why it ended without success, in words."""
    delay_s: float | None = None
    """Until the next attempt, when there is one."""


def decide(result: AttemptResult, attempts: int, policy: RetryPolicy, spread: float) -> RetryDecision:
    """Decide after an attempt.

    Args:
        result: what the attempt came to.
        attempts: made so far, this one included.
        policy: the schedule.
        spread: a number in [0, 1) drawn for this decision; where in the jitter the delay lies.
    """
    if result.answer is Answer.SUCCESS:
        return RetryDecision(DeliveryState.DELIVERED)
    final = _final_reason(result, attempts, policy)
    if final is not None:
        return RetryDecision(DeliveryState.DEAD_LETTERED, final)
    delay = policy.delays_s[attempts] * (1 + policy.jitter * spread)
    if result.retry_after_s is not None:
        delay = max(delay, min(result.retry_after_s, policy.max_retry_after_s))
    return RetryDecision(DeliveryState.RETRYING, delay_s=delay)


def _final_reason(result: AttemptResult, attempts: int, policy: RetryPolicy) -> str | None:
    if result.answer is Answer.REFUSED:
        return f"refused: {result.error}"
    if result.answer is Answer.GONE:
        return "the receiver answered 410: it wants no more"
    if result.aborted:
        return "the receiver asked that this webhook be not sent again"
    if attempts >= len(policy.delays_s):
        return f"not delivered in {attempts} attempts; the last: {result.error}"
    return None


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header: seconds or an HTTP date (RFC 9110, 10.2.3); None when absent or unreadable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # More digits than any sensible wait; float() of thousands of them would overflow.
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year of twenty digits overflows
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=now.tzinfo)
    return max(0.0, (moment - now).total_seconds())
