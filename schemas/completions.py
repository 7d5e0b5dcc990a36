"""The end of a request as its sender sees it: status events, and the body of the webhook."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.base import Event, Fingerprint, RequestId, Timestamp
from schemas.codes import AudioFormat, ErrorCode, State


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EngineInfo(_Part):
    """What spoke."""

    name: str
    revision: str
    seed: int


class AudioInfo(_Part):
    """The file of one request."""

    url: str
    format: AudioFormat
    bytes: int = Field(ge=0)
    sha256: str
    duration_s: float = Field(ge=0)
    sample_rate: int
    truncated: bool = False
    """The engine stopped before the text ended."""


class ErrorInfo(_Part):
    """Why there is no file."""

    code: ErrorCode
    message: str
    attempts: int = 0


class Timings(_Part):
    """Milliseconds this request spent; a cached one spent no time in queue, synthesis or upload."""

    queued: int = 0
    synthesis: int = 0
    upload: int = 0
    total: int = 0


class RequestStatus(Event):
    """A request reached a state. The last one of a request is terminal and says how it ended."""

    ce_type: ClassVar[str] = "voxbus.request.progressed.v1"

    request_id: RequestId
    state: State
    percent: int = Field(ge=0, le=100)
    at: Timestamp
    fingerprint: Fingerprint | None = None
    cached: bool = False
    audio: AudioInfo | None = None
    error: ErrorInfo | None = None

    @property
    def partition_key(self) -> str:
        """The request id."""
        return self.request_id


class CompletionData(_Part):
    """The `data` of a completion."""

    request_id: RequestId
    status: Literal["completed", "failed", "cancelled", "expired"]
    fingerprint: Fingerprint | None = None
    cached: bool = False
    audio: AudioInfo | None = None
    error: ErrorInfo | None = None
    engine: EngineInfo | None = None
    timings_ms: Timings = Timings()
    metadata: dict[str, Any] = Field(default_factory=dict)


class RequestCompleted(Event):
    """The value on `tts.completed`, and byte for byte the webhook's body.

    Absent parts are left out: a failure has `error` and no `audio`. The callback's address is not in here; it
    travels beside it as the extension header `ce_callbackurl`.
    """

    ce_type: ClassVar[str] = "voxbus.request.completed.v1"

    type: Literal["speech.completed", "speech.failed", "speech.cancelled", "speech.expired"]
    timestamp: Timestamp
    data: CompletionData

    @property
    def partition_key(self) -> str:
        """The request id."""
        return self.data.request_id
