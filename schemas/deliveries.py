"""The webhook's side: one event for every attempt to deliver a completion."""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.base import Event, RequestId, Timestamp


class DeliveryState(StrEnum):
    """What became of a delivery after an attempt."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD_LETTERED = "dead_lettered"


class DeliveryProgress(BaseModel):
    """How far a delivery is. Travels on the retry topics as the extension header `ce_delivery`, in JSON.

    Key, value and all other headers of such a record are those of the completion on `tts.completed`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    attempts: int = Field(ge=0, lt=2**31)
    """Made so far."""
    due_ms: int = Field(ge=0, lt=2**53)
    """When the next attempt is due, in milliseconds since 1970."""
    release_ms: int = Field(ge=0, lt=2**53)
    """When the record leaves the tier it waits in; before `due_ms` when the way takes several tiers."""
    first_ms: int = Field(ge=0, lt=2**53)
    """When the completion was published."""
    asked_again: bool = False
    """Whether it waited once, since the last attempt, because its endpoint was disabled as far as was known."""
    for_room: bool = False
    """Whether it waits for room at its endpoint only: `due_ms` is when that is expected, and it may go before."""
    partition: int
    """Where the completion stands on `tts.completed`."""
    offset: int


class DeliveryAttempted(Event):
    """One attempt to hand a completion to its callback or to a named endpoint; without address and body."""

    ce_type: ClassVar[str] = "voxbus.delivery.attempted.v1"

    request_id: RequestId
    webhook_id: str
    """One for life: the same on every attempt."""
    attempt: int = Field(ge=1)
    state: DeliveryState
    at: Timestamp
    host: str
    """Host and port of the target, for finding a dead endpoint."""
    endpoint: str | None = None
    """Name of the endpoint; absent for the request's own callback."""
    http_status: int | None = None
    latency_ms: int = Field(default=0, ge=0)
    error: str | None = None
    next_attempt_at: Timestamp | None = None

    @property
    def partition_key(self) -> str:
        """The request id."""
        return self.request_id
