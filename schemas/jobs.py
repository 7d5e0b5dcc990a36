"""Work orders: a synthesis for the device slots, a transcode for the uploader."""

from typing import ClassVar

from pydantic import Field

from schemas.base import Event, Fingerprint, RequestId, Timestamp
from schemas.codes import AudioFormat, Priority
from schemas.completions import EngineInfo
from schemas.outcomes import StoredObject
from schemas.requests import SpeechSpec


class SynthesisJob(Event):
    """Speak this once. Repeats of the same `job_id` are the same job, delivered again."""

    ce_type: ClassVar[str] = "voxbus.synthesis.queued.v1"

    job_id: str
    fingerprint: Fingerprint
    spec: SpeechSpec
    """With `seed` set."""
    formats: tuple[AudioFormat, ...]
    """Renditions wanted when the job was made; later ones come as transcodes."""
    priority: Priority
    request_id: RequestId
    """The request that caused the job; for logs and traces only."""
    enqueued_at: Timestamp
    deadline_at: Timestamp | None = None
    """Nobody waits past this moment."""
    drive: int = Field(default=1, ge=1)
    """How often dedup sent this job; raised when a pending synthesis is driven again."""

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint


class TranscodeRequested(Event):
    """Make further renditions of a stored synthesis from its master, without the engine."""

    ce_type: ClassVar[str] = "voxbus.transcode.requested.v1"

    job_id: str
    fingerprint: Fingerprint
    master: StoredObject
    formats: tuple[AudioFormat, ...]
    duration_s: float
    sample_rate: int
    engine: EngineInfo
    enqueued_at: Timestamp

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint


class JobCancelled(Event):
    """Nobody waits for this job any more: whoever speaks it may stop."""

    ce_type: ClassVar[str] = "voxbus.job.cancelled.v1"

    job_id: str
    fingerprint: Fingerprint

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint
