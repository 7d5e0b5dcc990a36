"""A delivery as it stands on the bus: a completion, where it goes, and how far it is."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from aiokafka import ConsumerRecord
from pydantic import TypeAdapter, ValidationError

from notifier.named_endpoint import OWN_CALLBACK
from notifier.signing import webhook_id
from notifier.tiers import stay
from schemas.base import RequestId
from schemas.codec import Headers, Message, context_of
from schemas.deliveries import DeliveryProgress

CALLBACK = "callbackurl"
ENDPOINT = "endpoint"
"""Extension attribute of a record that goes to one receiver only: a named endpoint, or the request's own callback."""
_ENDPOINT_HEADER = f"ce_{ENDPOINT}"
_PROGRESS_HEADER = "ce_delivery"
_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One completion on its way to one receiver."""

    request_id: str
    body: bytes
    callback: str
    headers: Headers
    """Those of the completion."""
    traceparent: str | None
    progress: DeliveryProgress
    webhook_id: str
    """One for life."""
    endpoint: str | None = None
    """The named endpoint it goes to; None for the callback."""

    @property
    def event_type(self) -> str:
        """Kind of the completion; "" when it does not say."""
        try:
            kind = json.loads(self.body)["type"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        return kind if isinstance(kind, str) else ""

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
        update = {"attempts": self.progress.attempts + 1, "asked_again": False}
        return replace(self, progress=self.progress.model_copy(update=update))

    def to_ask_again(self) -> "Delivery":
        """The same, once its endpoint was found disabled."""
        return replace(self, progress=self.progress.model_copy(update={"asked_again": True}))

    def anew(self, now_ms: int) -> "Delivery":
        """The same, due now and never attempted; begun at another moment, it is another delivery to the ledger."""
        progress = self.progress
        begun = DeliveryProgress(
            attempts=0,
            due_ms=now_ms,
            release_ms=now_ms,
            first_ms=now_ms,
            partition=progress.partition,
            offset=progress.offset,
        )
        return replace(self, progress=begun)

    def to_each(self, names: list[str]) -> "list[Delivery]":
        """The deliveries of a fresh completion: to its callback, if it has one, and to these named endpoints."""
        if any(name == _ENDPOINT_HEADER for name, _ in self.headers):
            return [self]  # comes back from the dead letters, for one of them
        own = [self.to(None) if names else self] if self.callback else []
        return own + [self.to(name) for name in names]

    def to(self, name: str | None) -> "Delivery":
        """The same to one receiver only: a named endpoint, under an id of its own, or for None the callback."""
        others = tuple(header for header in self.headers if header[0] != _ENDPOINT_HEADER)
        headers = (*others, (_ENDPOINT_HEADER, (name or OWN_CALLBACK).encode()))
        return replace(self, headers=headers, endpoint=name, webhook_id=webhook_id(self.request_id, name))

    def completion(self) -> Message:
        """The record as it stood on `tts.completed`: how a delivery begins anew."""
        return Message(self.request_id.encode(), self.body, self.headers)

    def waiting(self, now_ms: int, due_ms: int, *, for_room: bool = False) -> tuple[str, Message]:
        """The record that waits for `due_ms`, or until its endpoint has room, and the topic it waits on."""
        where = stay(now_ms, due_ms)
        update = {"due_ms": due_ms, "release_ms": where.release_ms, "for_room": for_room}
        progress = self.progress.model_copy(update=update)
        mark = (_PROGRESS_HEADER, progress.model_dump_json().encode())
        return where.topic, Message(self.request_id.encode(), self.body, (*self.headers, mark))


class UnreadableDeliveryError(Exception):
    """A record that should be a completion is none."""


def read_delivery(
    record: ConsumerRecord, first_delay_s: float = 0.0, *, without_callback: bool = False
) -> Delivery | None:
    """The delivery that a record of `tts.completed` or of a retry topic stands for; None when nobody asked for one.

    Args:
        record: as read.
        first_delay_s: how long a completion waits before its first attempt.
        without_callback: give also what has no callback, since named endpoints may want it.

    Raises:
        UnreadableDeliveryError: the key is no request id, there is no value, or it is not UTF-8.
    """
    headers = tuple((name, value) for name, value in record.headers or () if value is not None)
    context = context_of(headers)
    callback = context.extensions.get(CALLBACK, "")
    mark = context.extensions.get(ENDPOINT, OWN_CALLBACK)
    endpoint = None if mark == OWN_CALLBACK else mark
    if not callback and endpoint is None and not without_callback:
        return None
    if not record.key or record.value is None:
        raise UnreadableDeliveryError("a completion without key or value")
    try:
        request_id = _REQUEST_ID.validate_python(record.key.decode())
        # A signature covers text; bytes that are none cannot be signed, nor read by anyone.
        record.value.decode()
    except UnicodeDecodeError:
        raise UnreadableDeliveryError("a completion that is not UTF-8") from None
    except ValidationError:
        # Nothing could be said of its attempts: their event names the request.
        raise UnreadableDeliveryError("the key of a completion is no request id") from None
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
    name = webhook_id(request_id, endpoint)
    return Delivery(request_id, record.value, callback, kept, context.traceparent, progress, name, endpoint)


def _progress(headers: Iterable[tuple[str, bytes]]) -> DeliveryProgress | None:
    for name, value in headers:
        if name == _PROGRESS_HEADER:
            try:
                return DeliveryProgress.model_validate_json(value)
            except ValidationError:
                # Only a stranger writes this; beginning anew is harmless.
                return None
    return None
