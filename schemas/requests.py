"""What a client asks for, and what the door makes of it."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from schemas.base import Event, Fingerprint, RequestId, Timestamp
from schemas.codes import AudioFormat, Priority

MAX_TEXT_CHARS = 10_000
MAX_METADATA_BYTES = 4_096
MAX_METADATA_DEPTH = 32
MAX_CANONICAL_CHARS = 2 * MAX_TEXT_CHARS
"""Of the text as it is spoken: NFKC makes up to 18 characters of one."""
MAX_CALLBACK_CHARS = 2_048
MAX_SEED = 2**53 - 1  # the largest integer every JSON reader keeps exact


def _http_target(url: str) -> str:
    """Syntax only; which addresses may be called is the notifier's decision, made anew for every attempt."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an absolute http:// or https:// URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry credentials")
    if any(ch.isspace() or not ch.isprintable() for ch in url):
        raise ValueError("must not contain spaces or control characters")
    _ = parts.port  # raises ValueError when out of range
    return url


def _inside(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [metadata]
    for _ in range(MAX_METADATA_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise ValueError(f"must be nested at most {MAX_METADATA_DEPTH} deep")
    # NaN and infinities are not JSON: whoever reads the completion could not parse it.
    if len(json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes as JSON")
    return metadata


CallbackUrl = Annotated[str, StringConstraints(max_length=MAX_CALLBACK_CHARS), AfterValidator(_http_target)]
Metadata = Annotated[dict[str, Any], AfterValidator(_small)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Style(BaseModel):
    """ChatTTS's own controls; engines without them ignore them."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    oral: int = Field(default=0, ge=0, le=9)
    laugh: int = Field(default=0, ge=0, le=2)
    break_: int = Field(default=0, ge=0, le=7, alias="break", serialization_alias="break")


class SynthesisRequested(Event):
    """A request as a client publishes it. Only `text` is required."""

    ce_type: ClassVar[str] = "voxbus.synthesis.requested.v1"

    request_id: RequestId | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)]
    voice: Name = "female1"
    language: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")] | None = None
    """BCP 47 tag; recognised from the text when absent."""
    dialect: Name | None = None
    """A name of the voice catalogue; the language's own when absent."""
    style: Style = Style()
    speed: int = Field(default=5, ge=0, le=9)
    temperature: float = Field(default=0.3, gt=0, le=2, allow_inf_nan=False)
    top_p: float = Field(default=0.7, gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(default=20, ge=1, le=1_000)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """Absent: derived from the fingerprint and reported in the completion."""
    format: AudioFormat = AudioFormat.WAV
    priority: Priority = Priority.INTERACTIVE
    callback_url: CallbackUrl | None = None
    expires_in_s: int = Field(default=3_600, ge=1, le=604_800)
    metadata: Metadata = Field(default_factory=dict)

    @property
    def partition_key(self) -> str:
        """The request id; the door gives one to requests that come without."""
        return self.request_id or ""


class CancelRequested(Event):
    """The sender of a request does not want it any more. Stands on the same topic, behind the request."""

    ce_type: ClassVar[str] = "voxbus.cancel.requested.v1"

    request_id: RequestId

    @property
    def partition_key(self) -> str:
        """The request id, so that it comes after the request it is about."""
        return self.request_id


class SpeechSpec(BaseModel):
    """Everything that changes the sound, resolved: no defaults left to fill, text in canonical form."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    voice: str
    language: str
    dialect: str
    style: Style = Style()
    speed: int = 5
    temperature: float = 0.3
    top_p: float = 0.7
    top_k: int = 20
    seed: int | None = None


class SynthesisAdmitted(Event):
    """A request that passed the door, with its fingerprint."""

    ce_type: ClassVar[str] = "voxbus.synthesis.admitted.v1"

    request_id: RequestId
    fingerprint: Fingerprint
    spec: SpeechSpec
    format: AudioFormat
    priority: Priority
    callback_url: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    accepted_at: Timestamp
    expires_at: Timestamp

    @property
    def partition_key(self) -> str:
        """The fingerprint, so that equal requests meet in one partition."""
        return self.fingerprint

    def without_text(self) -> Self:
        """The same event for a log line."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"text": "…"})})


class CancelAdmitted(Event):
    """A cancellation on its way to the synthesis that the request waits for."""

    ce_type: ClassVar[str] = "voxbus.cancel.admitted.v1"

    request_id: RequestId
    fingerprint: Fingerprint

    @property
    def partition_key(self) -> str:
        """The fingerprint, so that it comes after the admitted request."""
        return self.fingerprint
