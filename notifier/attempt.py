"""What one attempt to deliver came to."""

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """Kinds of result, closed, so that they can be a metric's label."""

    SUCCESS = "2xx"
    REDIRECT = "3xx"
    GONE = "410"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    PROTOCOL = "protocol"
    REFUSED = "refused"

    @property
    def answered(self) -> bool:
        """Whether the endpoint is alive and willing: it answered, if only to refuse this one delivery."""
        return self in _ANSWERED


_ANSWERED = frozenset({Answer.SUCCESS, Answer.REDIRECT, Answer.GONE, Answer.CLIENT_ERROR})
_OVERLOADED = 429


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One attempt: what came back, and how long it took."""

    answer: Answer
    latency_s: float = 0.0
    status: int | None = None
    error: str | None = None
    """Why it failed, in words; never an address, never a body."""
    retry_after_s: float | None = None
    """What the receiver asked for with 429 or 503."""
    aborted: bool = False
    """The receiver asked that this message be not sent again (`webhook-delivery: abort-message`)."""

    @property
    def alive(self) -> bool:
        """Whether the endpoint should be given more; 429 asks for less."""
        return self.answer.answered and self.status != _OVERLOADED


def answer_of(status: int) -> Answer:
    """The kind of an HTTP status."""
    if 200 <= status < 300:
        return Answer.SUCCESS
    if 300 <= status < 400:
        return Answer.REDIRECT
    if status == 410:
        return Answer.GONE
    if 400 <= status < 500:
        return Answer.CLIENT_ERROR
    return Answer.SERVER_ERROR
