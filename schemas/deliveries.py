"""The webhook's side: one event for every attempt to deliver a completion."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from schemas.base import Event, RequestId, Timestamp


class DeliveryState(StrEnum):
    """What became of a delivery after an attempt."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD_LETTERED = "dead_lettered"


class DeliveryAttempted(Event):
    """One attempt to hand a completion to its callback. Neither the address nor the body is in here."""

    ce_type: ClassVar[str] = "voxbus.delivery.attempted.v1"

    request_id: RequestId
    webhook_id: str
    """One for life: the same on every attempt."""
    attempt: int = Field(ge=1)
    state: DeliveryState
    at: Timestamp
    host: str
    """Host and port of the target, for finding a dead endpoint."""
    http_status: int | None = None
    latency_ms: int = Field(default=0, ge=0)
    error: str | None = None
    next_attempt_at: Timestamp | None = None

    @property
    def partition_key(self) -> str:
        """The request id."""
        return self.request_id
