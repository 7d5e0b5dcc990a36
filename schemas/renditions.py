"""The cache entry of a rendition in Redis: written by the uploader once the object is durable, read at the doors."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.base import Fingerprint, Timestamp
from schemas.codes import AudioFormat
from schemas.completions import AudioInfo, EngineInfo


def rendition_cache_key(fingerprint: str, audio_format: AudioFormat) -> str:
    """Where the entry stands, without the installation's Redis namespace."""
    return f"rendition:{fingerprint}:{audio_format.value}"


class CachedRendition(BaseModel):
    """Enough to answer a repeated request without asking anybody else."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    fingerprint: Fingerprint
    key: str
    """The object's key in the bucket, for a fresh URL when this one is worn out."""
    url: str
    format: AudioFormat
    bytes: int = Field(ge=0)
    sha256: str
    duration_s: float = Field(ge=0)
    sample_rate: int
    truncated: bool = False
    engine: EngineInfo
    stored_at: Timestamp

    def audio(self) -> AudioInfo:
        """The same as a completion tells it."""
        return AudioInfo(
            url=self.url,
            format=self.format,
            bytes=self.bytes,
            sha256=self.sha256,
            duration_s=self.duration_s,
            sample_rate=self.sample_rate,
            truncated=self.truncated,
        )
