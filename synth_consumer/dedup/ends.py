"""The end of a request: its last status, and the completion that becomes the webhook's body."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from schemas import topics
from schemas.codec import Context
from schemas.codes import AudioFormat, ErrorCode, State
from schemas.completions import AudioInfo, CompletionData, ErrorInfo, RequestCompleted, RequestStatus, Timings
from synth_consumer.dedup.rows import Stored, WaiterRow, moment
from synth_consumer.dedup.steps import Output, say


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom an end is told."""

    request_id: str
    accepted_at: float
    fingerprint: str | None = None
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, waiter: WaiterRow) -> "Asker":
        """The request behind a waiter."""
        return cls(
            waiter.request_id,
            waiter.accepted_at,
            waiter.fingerprint,
            waiter.callback_url,
            waiter.metadata,
            waiter.traceparent,
        )

    @property
    def context(self) -> Context:
        """The trace of the request."""
        return Context(self.traceparent)


def completed(asker: Asker, stored: Stored, wanted: AudioFormat, *, cached: bool, now: float) -> Iterator[Output]:
    """The messages of a good end.

    Raises:
        KeyError: the rendition is not there.
    """
    file = stored.renditions[wanted]
    audio = AudioInfo(
        url=file.url,
        format=file.format,
        bytes=file.bytes,
        sha256=file.sha256,
        duration_s=stored.duration_s,
        sample_rate=file.sample_rate or stored.sample_rate,
        truncated=stored.truncated,
    )
    total = max(0, round((now - asker.accepted_at) * 1000))
    timings = (
        Timings(total=total)
        if cached
        else Timings(queued=stored.queued_ms, synthesis=stored.synthesis_ms, upload=stored.upload_ms, total=total)
    )
    data = CompletionData(
        request_id=asker.request_id,
        status="completed",
        fingerprint=asker.fingerprint,
        cached=cached,
        audio=audio,
        engine=stored.engine,
        timings_ms=timings,
        metadata=asker.metadata or {},
    )
    return _end(asker, State.COMPLETED, "speech.completed", data, now)


def failed(asker: Asker, error: ErrorInfo, *, now: float) -> Iterator[Output]:
    """The messages of a bad end."""
    data = CompletionData(
        request_id=asker.request_id,
        status="failed",
        fingerprint=asker.fingerprint,
        error=error,
        timings_ms=Timings(total=max(0, round((now - asker.accepted_at) * 1000))),
        metadata=asker.metadata or {},
    )
    return _end(asker, State.FAILED, "speech.failed", data, now)


def expired(asker: Asker, *, now: float) -> Iterator[Output]:
    """The messages of a request nobody waits for any more."""
    error = ErrorInfo(code=ErrorCode.DEADLINE_EXCEEDED, message="the request expired before its audio was ready")
    data = CompletionData(
        request_id=asker.request_id,
        status="expired",
        fingerprint=asker.fingerprint,
        error=error,
        timings_ms=Timings(total=max(0, round((now - asker.accepted_at) * 1000))),
        metadata=asker.metadata or {},
    )
    return _end(asker, State.EXPIRED, "speech.expired", data, now)


def marked(waiters: Iterable[WaiterRow], error: ErrorInfo | None, *, cancelled: bool = False) -> tuple[WaiterRow, ...]:
    """Waiters with the bad end they are to be told; without an error they expired, or were cancelled."""
    without_error = "cancelled" if cancelled else "expired"
    update = {"end": "failed" if error else without_error, "error": error}
    return tuple(waiter.model_copy(update=update) for waiter in waiters)


def told(waiters: Iterable[WaiterRow], *, now: float) -> Iterator[Output]:
    """The messages of the bad ends that waiters are marked with."""
    for waiter in waiters:
        if waiter.error is not None:
            yield from failed(Asker.of(waiter), waiter.error, now=now)
        elif waiter.end == "cancelled":
            yield from cancelled(Asker.of(waiter), now=now)
        else:
            yield from expired(Asker.of(waiter), now=now)


def cancelled(asker: Asker, *, now: float) -> Iterator[Output]:
    """The messages of a request that its sender does not want any more."""
    data = CompletionData(
        request_id=asker.request_id,
        status="cancelled",
        fingerprint=asker.fingerprint,
        timings_ms=Timings(total=max(0, round((now - asker.accepted_at) * 1000))),
        metadata=asker.metadata or {},
    )
    return _end(asker, State.CANCELLED, "speech.cancelled", data, now)


def progressed(asker: Asker, state: State, percent: int, *, now: float) -> Output:
    """A request moved on."""
    status = RequestStatus(
        request_id=asker.request_id, state=state, percent=percent, at=moment(now), fingerprint=asker.fingerprint
    )
    return say(topics.STATUS, status, asker.context, event_id=f"{asker.request_id}:{state}:{percent}")


def _end(
    asker: Asker,
    state: State,
    name: Literal["speech.completed", "speech.failed", "speech.expired", "speech.cancelled"],
    data: CompletionData,
    now: float,
) -> Iterator[Output]:
    at: datetime = moment(now)
    status = RequestStatus(
        request_id=asker.request_id,
        state=state,
        percent=100,
        at=at,
        fingerprint=data.fingerprint,
        cached=data.cached,
        audio=data.audio,
        error=data.error,
    )
    # One id for life: told twice, it is the same event.
    event_id = f"{asker.request_id}:end"
    yield say(topics.STATUS, status, asker.context, event_id=event_id)
    extensions = {"callbackurl": asker.callback_url} if asker.callback_url else {}
    completion = RequestCompleted(type=name, timestamp=at, data=data)
    yield say(topics.COMPLETED, completion, Context(asker.traceparent, extensions), event_id=event_id)
