"""What became of a synthesis, told to dedup by the worker and the uploader."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.base import Event, Fingerprint
from schemas.codes import AudioFormat, ErrorCode, State
from schemas.completions import EngineInfo

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class StoredObject(BaseModel):
    """One file in object storage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    format: AudioFormat
    bytes: int = Field(ge=0)
    sha256: Sha256
    url: str
    """Where a receiver fetches it: CDN address, or a presigned URL."""
    sample_rate: int | None = None
    """Hz, of the file: Opus knows few rates. Absent in what was written by earlier versions: the master's."""


class RenditionStored(Event):
    """Renditions of a synthesis are durable in object storage."""

    ce_type: ClassVar[str] = "voxbus.rendition.stored.v1"

    fingerprint: Fingerprint
    job_id: str
    take_id: str
    """Empty when transcoded from a stored master."""
    master: StoredObject
    renditions: tuple[StoredObject, ...]
    duration_s: float = Field(ge=0)
    sample_rate: int
    engine: EngineInfo
    truncated: bool = False
    attempts: int = 1
    queued_ms: int = 0
    synthesis_ms: int = 0
    upload_ms: int = 0

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint


class StageProgress(Event):
    """A synthesis moved on."""

    ce_type: ClassVar[str] = "voxbus.stage.progressed.v1"

    fingerprint: Fingerprint
    job_id: str
    state: State
    percent: int = Field(ge=0, le=100)

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint


class SynthesisFailed(Event):
    """A synthesis, or the renditions named in `formats`, will not come."""

    ce_type: ClassVar[str] = "voxbus.synthesis.failed.v1"

    fingerprint: Fingerprint
    job_id: str
    code: ErrorCode
    message: str
    attempts: int = 1
    formats: tuple[AudioFormat, ...] = ()
    """Empty: the whole synthesis. Otherwise only these renditions; the master stays."""

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint


Outcome = RenditionStored | StageProgress | SynthesisFailed
