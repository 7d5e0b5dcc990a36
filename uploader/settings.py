"""Settings of the uploader: `VOXBUS_UPLOADER__…`, beside the common ones."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from infra.settings import CommonSettings, Fragment

_MIB = 1024 * 1024
MIN_PART_BYTES = 5 * _MIB
"""S3 takes no smaller part of a multipart upload, the last one aside."""


class SpoolSettings(Fragment):
    """Where the audio of unfinished takes waits. All of it can be lost: it is read again from the bus."""

    folder: str | None = None
    """For what does not fit in memory; the system's folder for temporary files when absent."""
    take_memory_bytes: int = Field(default=16 * _MIB, ge=0)
    """A take larger than this moves to disk (16 MiB: almost six minutes at 24 kHz)."""
    memory_bytes: int = Field(default=256 * _MIB, ge=0)
    """All takes in memory together; past it the largest moves to disk."""
    disk_bytes: int = Field(default=4096 * _MIB, ge=0)
    """All takes on disk together; past it no audio is read until a finished take has left."""
    take_bytes: int = Field(default=512 * _MIB, ge=1)
    """No take may be larger (three hours at 24 kHz)."""
    stale_after_s: float = Field(default=600.0, gt=0)
    """A take that nothing more was heard of is dropped: its worker died, and the job comes again as another take."""

    @model_validator(mode="after")
    def _takes_fit(self) -> Self:
        if self.take_bytes > self.disk_bytes:
            raise ValueError("take_bytes must not be above disk_bytes: the largest take must fit on disk")
        return self


class CdnSettings(Fragment):
    """A CDN that is told which addresses are new. Off without `refresh_url`."""

    refresh_url: str | None = None
    """Gets POST {"urls": [...]} and must answer 2xx."""
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer`."""
    attempts: int = Field(default=3, ge=1, le=10)
    timeout_s: float = Field(default=5.0, gt=0)


class UploaderFragment(Fragment):
    """What only the uploader reads."""

    concurrency: int = Field(default=4, ge=1, le=64)
    """Finished takes and transcodes in hand at once."""
    waiting: int = Field(default=16, ge=1)
    """Finished takes that may wait for their turn before reading from the bus pauses."""
    encoders: int = Field(default=2, ge=1, le=64)
    """Threads that check and encode audio; the codecs let go of the interpreter while they work."""
    requests: int = Field(default=8, ge=1, le=256)
    """Bodies on their way to object storage at once; each holds at most `part_bytes` in memory."""
    part_bytes: int = Field(default=MIN_PART_BYTES, ge=MIN_PART_BYTES)
    """Objects above this size are uploaded in parts of this size."""
    http_attempts: int = Field(default=3, ge=1, le=10)
    """Attempts within the storage client, seconds apart at most; past them the uploader's own patience begins."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    read_timeout_s: float = Field(default=60.0, gt=0)
    storage_patience_s: float = Field(default=900.0, gt=0)
    """How long storage may be down for a job without a deadline; one with a deadline waits until then."""
    start_timeout_s: float = Field(default=30.0, gt=0)
    """How long to wait at start for a storage that is still coming up."""
    abandoned_upload_age_s: float = Field(default=86_400.0, ge=0)
    """Multipart uploads older than this are aborted at start and daily: whoever began them is gone."""
    spool: SpoolSettings = SpoolSettings()
    cdn: CdnSettings = CdnSettings()


class UploaderSettings(CommonSettings):
    """Everything the uploader reads."""

    uploader: UploaderFragment = UploaderFragment()
