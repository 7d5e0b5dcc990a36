"""Settings of the dedup app."""

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from infra.settings import CommonSettings, EngineSettings, Fragment


class SpokenSettings(EngineSettings):
    """Engine, revision and voices: what a fingerprint is made of. The worker's own settings stand beside them."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class DedupSettings(Fragment):
    """Tables, their clocks, and the web views."""

    store: Literal["memory", "rocksdb"] = "memory"
    """Where table rows are kept; both are rebuilt from the changelog topics."""
    data_dir: Path = Path(".voxbus/dedup")
    """Folder of the RocksDB files; each worker wants its own."""
    web_host: str = "127.0.0.1"
    """Where the web views listen."""
    web_port: int = Field(default=6066, ge=0, le=65_535)
    """0 picks a free port, which is logged."""
    web_url: str | None = None
    """Where other workers reach this one's web views; `http://web_host:web_port` when absent, with the host's own
    address in place of 0.0.0.0."""
    stored_ttl_s: int = Field(default=86_400, ge=1)
    """How long a stored synthesis answers further requests (24 h in the source article)."""
    request_retention_s: int = Field(default=86_400, ge=1)
    """How long a request is remembered after it may last end; a repeat of its id is recognised so long."""
    delivery_retention_s: int = Field(default=86_400, ge=1)
    """How long a request's webhooks are shown after the last attempt, or after the next is due."""
    delivery_attempts_kept: int = Field(default=30, ge=1, le=50)
    """How many attempts are shown for each receiver of a request, the newest."""
    redrive_after_s: float = Field(default=300.0, gt=0)
    """A synthesis a worker began and was silent about for so long is driven again; doubled with every drive. One that
    still waits in a queue is driven again at half of the time its requests have left."""
    max_drives: int = Field(default=3, ge=1, le=20)
    """How often one job is sent; its requests end `deadline_exceeded` after the last, or `expired` in the queue."""
    progress_fan_out: int = Field(default=64, ge=0)
    """How many of a synthesis' waiting requests are told of each step of progress; their end is told to all."""
    tick_interval_s: float = Field(default=2.0, gt=0)
    """How often each partition looks for rows that are due."""
    due_per_tick: int = Field(default=500, ge=1)
    """How many due rows one tick of one partition handles."""
    max_request_bytes: int = Field(default=262_144, ge=65_536, le=900_000)
    """A request message larger than this is refused; valid ones are below 64 KiB."""
    max_in_flight: int = Field(default=2_000, ge=1)
    """Events whose outputs the bus has not confirmed yet; no further ones are taken above that."""
    commit_interval_s: float = Field(default=0.5, gt=0)
    """How often finished events are committed; up to so much is done again after a kill."""
    standby_replicas: int = Field(default=0, ge=0, le=3)
    """Workers that keep a warm copy of each partition's tables."""


class Settings(CommonSettings):
    """Everything the dedup app reads."""

    dedup: DedupSettings = DedupSettings()
    synth: SpokenSettings = SpokenSettings()
