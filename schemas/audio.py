"""Audio on the bus: PCM chunks while a take is made, and the take's end.

A chunk's value is the PCM itself (signed 16-bit little-endian, mono); its attributes travel as CloudEvents
extension headers. The end of a take is a JSON event of its own, so that no reader has to look into samples.
"""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from schemas.base import Event, Fingerprint
from schemas.codes import ErrorCode
from schemas.completions import EngineInfo
from schemas.jobs import SynthesisJob

BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """About one second of a take."""

    ce_type: ClassVar[str] = "voxbus.audio.produced.v1"
    content_type: ClassVar[str] = "audio/L16"

    fingerprint: str
    job_id: str
    take_id: str
    index: int  # 0, 1, 2, … without gap within a take
    sample_rate: int  # Hz
    pcm: bytes  # int16 little-endian mono

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint


class TakeFinished(Event):
    """The last event of a good take: what the chunks before it must add up to."""

    ce_type: ClassVar[str] = "voxbus.take.finished.v1"

    take_id: str
    job: SynthesisJob
    chunks: int = Field(ge=0)
    samples: int = Field(ge=0)
    sample_rate: int
    sha256: str
    """Over the PCM of all chunks in order."""
    engine: EngineInfo
    truncated: bool = False
    attempts: int = Field(default=1, ge=1)
    queued_ms: int = Field(default=0, ge=0)
    synthesis_ms: int = Field(default=0, ge=0)

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.job.fingerprint


class TakeAbandoned(Event):
    """No more chunks of this take will come, and those that came are worth nothing."""

    ce_type: ClassVar[str] = "voxbus.take.abandoned.v1"

    take_id: str
    job_id: str
    fingerprint: Fingerprint
    code: ErrorCode

    @property
    def partition_key(self) -> str:
        """The fingerprint."""
        return self.fingerprint
