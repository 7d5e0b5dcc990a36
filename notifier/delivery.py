"""A delivery as it stands on the bus: a completion, its callback, and how far it is."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from notifier.signing import webhook_id
from notifier.tiers import stay
from schemas.codec import Headers, Message, context_of
from schemas.deliveries import DeliveryProgress

CALLBACK = "callbackurl"
_PROGRESS_HEADER = "ce_delivery"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One completion on its way to one callback."""

    request_id: str
    body: bytes
    callback: str
    headers: Headers
    """Those of the completion."""
    traceparent: str | None
    progress: DeliveryProgress
    webhook_id: str
    """One for life."""

    @property
    def attempt(self) -> int:
        """Number of the next attempt, from 1."""
        return self.progress.attempts + 1

    @property
    def id(self) -> str:
        """The same for every copy of its record and on every attempt; a replayed completion has another."""
        p = self.progress
        return f"{self.webhook_id}:{p.first_ms}:{p.partition}:{p.offset}"

    def attempted(self) -> "Delivery":
        """The same after one more attempt."""
        return replace(self, progress=self.progress.model_copy(update={"attempts": self.progress.attempts + 1}))

    def anew(self, now_ms: int) -> "Delivery":
        """The same, due now and never attempted; begun at another moment, it is another delivery to the ledger."""
        begun = {"attempts": 0, "first_ms": now_ms, "due_ms": now_ms, "release_ms": now_ms}
        return replace(self, progress=self.progress.model_copy(update=begun))

    def completion(self) -> Message:
        """The record as it stood on `tts.completed`: how a delivery begins anew."""
        return Message(self.request_id.encode(), self.body, self.headers)

    def waiting(self, now_ms: int, due_ms: int) -> tuple[str, Message]:
        """The record that waits for `due_ms`, and the topic it waits on."""
        where = stay(now_ms, due_ms)
        progress = self.progress.model_copy(update={"due_ms": due_ms, "release_ms": where.release_ms})
        mark = (_PROGRESS_HEADER, progress.model_dump_json().encode())
        return where.topic, Message(self.request_id.encode(), self.body, (*self.headers, mark))


class UnreadableDeliveryError(Exception):
    """A record that should be a completion is none."""


def read_delivery(record: ConsumerRecord, first_delay_s: float = 0.0) -> Delivery | None:
    """The delivery that a record of `tts.completed` or of a retry topic stands for; None when nobody asked for one.

    Args:
        record: as read.
        first_delay_s: how long a completion waits before its first attempt.

    Raises:
        UnreadableDeliveryError: no key, no value, or the value is not UTF-8.
    """
    headers = tuple((name, value) for name, value in record.headers or () if value is not None)
    context = context_of(headers)
    callback = context.extensions.get(CALLBACK)
    if not callback:
        return None
    if not record.key or record.value is None:
        raise UnreadableDeliveryError("a completion without key or value")
    try:
        request_id = record.key.decode()
        # A signature covers text; bytes that are none cannot be signed, nor read by anyone.
        record.value.decode()
    except UnicodeDecodeError:
        raise UnreadableDeliveryError("a completion that is not UTF-8") from None
    due_ms = record.timestamp + int(first_delay_s * 1000)
    fresh = DeliveryProgress(
        attempts=0,
        due_ms=due_ms,
        release_ms=due_ms,
        first_ms=record.timestamp,
        partition=record.partition,
        offset=record.offset,
    )
    kept = tuple((name, value) for name, value in headers if name != _PROGRESS_HEADER)
    progress = _progress(headers) or fresh
    return Delivery(request_id, record.value, callback, kept, context.traceparent, progress, webhook_id(request_id))


def _progress(headers: Iterable[tuple[str, bytes]]) -> DeliveryProgress | None:
    for name, value in headers:
        if name == _PROGRESS_HEADER:
            try:
                return DeliveryProgress.model_validate_json(value)
            except ValidationError:
                # Only a stranger writes this; beginning anew is harmless.
                return None
    return None
