"""What is remembered of a request's webhooks: the newest attempts for each receiver. Pure.

The log on `tts.deliveries` may be read again from any point, and an attempt may stand on it twice. A row keeps the
newest of a set of attempts, so reading one again changes nothing, also one that was crowded out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.deliveries import DeliveryAttempted
from synth_consumer.dedup.rows import AttemptRow, DeliveryRow, ReceiverRow, moment
from synth_consumer.dedup.steps import Step, Write

# Receivers of one request that are remembered, those last attempted; with the attempts kept this bounds a row.
RECEIVERS_KEPT = 50
_ERROR_CHARS = 200


@dataclass(frozen=True, slots=True)
class Memory:
    """How much is remembered, and how long."""

    attempts: int
    """For each receiver, the newest."""
    retention_s: float
    """After the last attempt, or after the next one is due."""


class Deliveries(Protocol):
    """The rows of deliveries."""

    def delivery(self, request_id: str) -> DeliveryRow | None:
        """All that is remembered of one request's webhooks."""


def on_attempted(rows: Deliveries, event: DeliveryAttempted, memory: Memory, *, now: float) -> Step:
    """An attempt was made; `now` in seconds since 1970."""
    attempt = _attempt_of(event)
    remove_at = max(attempt.at, attempt.next_at or 0.0) + memory.retention_s
    if remove_at <= now:
        return Step("ignored")  # the log reaches further back than the rows
    row = rows.delivery(event.request_id) or DeliveryRow(remove_at=remove_at)
    known = row.receivers.get(event.webhook_id)
    attempts = _newest((*(known.attempts if known else ()), attempt), memory.attempts)
    receiver = ReceiverRow(host=event.host or (known.host if known else ""), endpoint=event.endpoint, attempts=attempts)
    receivers = _last_attempted({**row.receivers, event.webhook_id: receiver})
    noted = DeliveryRow(remove_at=max(row.remove_at, remove_at), receivers=receivers)
    if noted == row:
        return Step("ignored")
    return Step("noted", (Write("deliveries", event.request_id.encode(), noted),))


def on_delivery_due(key: bytes, row: DeliveryRow, *, now: float) -> Step | None:
    """A request whose webhooks nobody asks about any more is forgotten; None when it is too early."""
    return Step("ticked", (Write("deliveries", key, None),)) if row.remove_at <= now else None


def delivery_view(request_id: str, row: DeliveryRow) -> dict[str, Any]:
    """A row as the web view shows it; receivers in the order of their first remembered attempt."""
    receivers = sorted(row.receivers.items(), key=lambda item: (item[1].attempts[0].at, item[0]))
    return {"request_id": request_id, "deliveries": [_receiver_view(name, receiver) for name, receiver in receivers]}


def _attempt_of(event: DeliveryAttempted) -> AttemptRow:
    return AttemptRow(
        attempt=event.attempt,
        at=event.at.timestamp(),
        state=event.state,
        http_status=event.http_status,
        latency_ms=event.latency_ms,
        error=event.error[:_ERROR_CHARS] if event.error else None,
        next_at=event.next_attempt_at.timestamp() if event.next_attempt_at else None,
    )


def _newest(attempts: Iterable[AttemptRow], at_most: int) -> tuple[AttemptRow, ...]:
    # One attempt is one moment and number: a replay begins to count anew.
    each = {(attempt.at, attempt.attempt): attempt for attempt in attempts}
    return tuple(each[name] for name in sorted(each)[-at_most:])


def _last_attempted(receivers: dict[str, ReceiverRow]) -> dict[str, ReceiverRow]:
    names = sorted(receivers, key=lambda name: (receivers[name].attempts[-1].at, name))[-RECEIVERS_KEPT:]
    return {name: receivers[name] for name in sorted(names)}


def _receiver_view(webhook_id: str, receiver: ReceiverRow) -> dict[str, Any]:
    return {
        "webhook_id": webhook_id,
        "endpoint": receiver.endpoint,
        "host": receiver.host,
        "state": receiver.attempts[-1].state,
        "attempts": [_attempt_view(attempt) for attempt in receiver.attempts],
    }


def _attempt_view(attempt: AttemptRow) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "at": moment(attempt.at).isoformat(),
        "state": attempt.state,
        "http_status": attempt.http_status,
        "latency_ms": attempt.latency_ms,
        "error": attempt.error,
        "next_attempt_at": moment(attempt.next_at).isoformat() if attempt.next_at else None,
    }
