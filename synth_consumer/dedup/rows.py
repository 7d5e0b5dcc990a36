"""Rows of the four tables, as they stand in the changelog: compact JSON. Moments are seconds since 1970, UTC."""

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from schemas.codes import AudioFormat, Priority, State
from schemas.completions import AudioInfo, EngineInfo, ErrorInfo
from schemas.deliveries import DeliveryState
from schemas.outcomes import StoredObject
from schemas.requests import SpeechSpec

TableName = Literal["requests", "syntheses", "waiters", "deliveries"]


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as an aware moment."""
    return datetime.fromtimestamp(seconds, UTC)


class Row(BaseModel):
    """What every row can do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        """Read a row; fields of later versions are ignored."""
        return cls.model_validate_json(value)

    def to_bytes(self) -> bytes:
        """The row without what stands at its default."""
        return self.model_dump_json(exclude_defaults=True).encode()


class RequestRow(Row):
    """One request, from the first message that carried its id until its retention ends. Key: the request id."""

    digest: str
    """Of the content, to tell a repeat from a conflict."""
    source: str
    """Message the row was made from, `topic-partition-offset`: delivered again it is no repeat."""
    accepted_at: float
    at: float
    remove_at: float
    state: State = State.ACCEPTED
    percent: int = 0
    fingerprint: str | None = None
    cached: bool = False
    audio: AudioInfo | None = None
    error: ErrorInfo | None = None
    refused: ErrorInfo | None = None
    """Of a request that was refused at the door: its end, to be told again when its message comes again."""


class Stored(Row):
    """What is known of a synthesis that is durable in object storage."""

    master: StoredObject
    renditions: dict[AudioFormat, StoredObject]
    duration_s: float
    sample_rate: int
    engine: EngineInfo
    truncated: bool = False
    queued_ms: int = 0
    synthesis_ms: int = 0
    upload_ms: int = 0


class TranscodeOrder(Row):
    """A rendition asked of the uploader and not there yet."""

    job_id: str
    due_at: float
    drive: int = 1
    percent: int = 5
    error: ErrorInfo | None = None
    """Why it will not come. The order stays until nobody waits for it any more."""


class SynthesisRow(Row):
    """One synthesis. Key: the fingerprint."""

    fingerprint: str
    state: Literal["pending", "stored", "failed"]
    """`failed` only while its waiters are being told; the row goes with the last of them."""
    job_id: str
    request_id: str
    """The request that caused the job."""
    due_at: float
    """Pending: when it is driven again. Stored: when it is forgotten."""
    spec: SpeechSpec | None = None
    """With its seed; None once stored."""
    formats: tuple[AudioFormat, ...] = ()
    priority: Priority = Priority.INTERACTIVE
    deadline_at: float = 0.0
    drive: int = 1
    heard: bool = False
    """Whether a worker said anything since the job was last driven; until then it may simply stand in a queue."""
    stage: State = State.QUEUED
    percent: int = 5
    traceparent: str | None = None
    stored: Stored | None = None
    orders: dict[AudioFormat, TranscodeOrder] = Field(default_factory=dict)


class WaiterRow(Row):
    """One request that waits for a synthesis or a rendition. Key: `fingerprint/request_id`."""

    fingerprint: str
    request_id: str
    job_id: str
    format: AudioFormat
    accepted_at: float
    expires_at: float
    cached: bool = False
    """The sound was there before the request; only its format was missing."""
    callback_url: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    traceparent: str | None = None
    end: Literal["failed", "expired", "cancelled"] | None = None
    """A bad end is written down before it is told: whoever finds the row after a crash tells the same one."""
    error: ErrorInfo | None = None
    remove_at: float = 0.0
    """Set when the bad end is told. Until then the row stays, for its request may be delivered once more."""

    @property
    def key(self) -> bytes:
        """Key of the row."""
        return waiter_key(self.fingerprint, self.request_id)


class AttemptRow(Row):
    """One attempt to deliver a completion."""

    attempt: int
    at: float
    state: DeliveryState
    http_status: int | None = None
    latency_ms: int = 0
    error: str | None = None
    next_at: float | None = None
    """When the next attempt is due; None after the last."""


class ReceiverRow(Row):
    """One receiver of a request's completion: its callback, or a named endpoint."""

    host: str
    """Host and port; "" when the address was refused."""
    attempts: tuple[AttemptRow, ...]
    """At least one, the oldest first."""
    endpoint: str | None = None
    """Its name; None for the callback."""


class DeliveryRow(Row):
    """The webhooks of one request. Key: the request id."""

    remove_at: float
    receivers: dict[str, ReceiverRow] = Field(default_factory=dict)
    """By webhook-id."""


def waiter_key(fingerprint: str, request_id: str) -> bytes:
    """Key of a waiter's row: its synthesis first, so that a listing groups by it."""
    return f"{fingerprint}/{request_id}".encode()
