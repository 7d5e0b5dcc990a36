"""Settings of the gateway."""

from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from infra.settings import CommonSettings, EngineSettings, Fragment


class SpokenSettings(EngineSettings):
    """Engine, revision and voices: what a fingerprint is made of. The worker's own settings stand beside them."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class GatewaySettings(Fragment):
    """The HTTP door."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    """0 picks a free port, which is logged."""
    rate_per_s: int = Field(default=600, ge=1)
    """Token bucket of the whole installation: requests a second (600 in the source article)."""
    rate_burst: int = Field(default=600, ge=1)
    """Size of that bucket, a second's worth at least: the bucket is filled up once a second."""
    key_rate_per_s: int = Field(default=600, ge=1)
    """Token bucket of each API key, and its size."""
    api_keys_file: Path | None = None
    """JSON lines `{"name": …, "sha256": …}`; absent: no key is asked for. `voxbus gateway --new-key NAME` makes one."""
    cors_origins: tuple[str, ...] = ()
    """Origins that pages of other sites may call from; none by default."""
    max_body_bytes: int = Field(default=131_072, ge=1_024)
    """Larger bodies are refused with 413. A request of 10,000 characters is at most 64 KiB."""
    max_connections: int = Field(default=1_000, ge=1)
    """Open connections of one gateway; more are answered 503."""
    max_listeners: int = Field(default=256, ge=1)
    """Streams and event feeds of one gateway at a time."""
    wait_max_s: float = Field(default=60.0, gt=0)
    """The longest `Prefer: wait=N` that is honoured."""
    bus_timeout_s: float = Field(default=1.5, gt=0)
    """How long a publish may take before the bus counts as down (503)."""
    object_timeout_s: float = Field(default=5.0, gt=0)
    """How long object storage may keep a listener waiting for the next bytes."""
    stream_timeout_s: float = Field(default=300.0, gt=0)
    """How long a stream waits for audio that does not come."""
    max_stream_object_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """Stored audio that is held whole in memory, by all streams together, where the store gives no ranges out."""
    idempotency_ttl_s: int = Field(default=86_400, ge=60)
    """How long an `Idempotency-Key` is remembered."""
    projection_ttl_s: int = Field(default=86_400, ge=60)
    """How long a request can be asked for by its id."""
    dedup_web: str = "http://127.0.0.1:6066"
    """Base URL of the dedup app's web views: the state of a request when Redis does not know it."""
    max_queued_audio_s: float = Field(default=36_000.0, gt=0)
    """Queued audio-seconds above which bulk requests are refused with 429; interactive ones at twice that."""
    stream_buffer_s: float = Field(default=600.0, gt=0)
    """Audio of one take kept for listeners that join late or lag, in seconds."""
    stream_buffer_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Audio kept for all takes together."""
    send_timeout_s: float = Field(default=30.0, gt=0)
    """How long a listener may take nothing before it is let go."""
    cancel_unheard: bool = False
    """A listener that leaves cancels the work, unless somebody else follows the request. The same on all gateways."""
    unheard_grace_s: float = Field(default=5.0, ge=0)
    """How long a listener that left may take to come back before that."""
    stages: dict[str, str] = Field(default_factory=dict)
    """Name of a stage → base URL of its health server, for the console's picture; a JSON object."""
    scrape_every_s: float = Field(default=1.0, gt=0)
    """How often the figures of dedup and of the stages are fetched, while anybody looks."""

    @model_validator(mode="after")
    def _bucket_holds_a_second(self) -> Self:
        if self.rate_burst < self.rate_per_s:
            raise ValueError("rate_burst must be at least rate_per_s")
        return self


class Settings(CommonSettings):
    """Everything the gateway reads."""

    gateway: GatewaySettings = GatewaySettings()
    synth: SpokenSettings = SpokenSettings()
