"""Settings of the worker: the engines' own, how many slots there are, and the bounds of every wait."""

from pydantic import Field

from infra.settings import CommonSettings
from synth_consumer.engines.settings import EnginesSettings


class SynthSettings(EnginesSettings):
    """Device slots (`VOXBUS_SYNTH__…`)."""

    slots: int | None = Field(default=None, ge=1, le=256)
    """Consumers, each with its own engine process. Absent: as `voxbus synth --plan` shows."""
    lanes: int | None = Field(default=None, ge=1, le=256)
    """Takes one engine holds at once. Absent: the engine's own setting, or as many as the device's memory holds."""
    bulk_every: int = Field(default=4, ge=2, le=1_000)
    """While interactive jobs wait, every so manieth job is a bulk one all the same."""
    interactive_lanes: int | None = Field(default=None, ge=0, le=255)
    """Lanes of a slot that bulk jobs never take. Absent: a quarter of them, so none of fewer than four."""
    first_chunk_s: float = Field(default=0.15, gt=0, le=10)
    """Length of a take's first chunk: a listener hears it this early."""
    chunk_s: float = Field(default=1.0, gt=0, le=10)
    """Length of the chunks after it; one second of 24 kHz speech is 48 kB."""
    unsent_chunks: int = Field(default=16, ge=1, le=1_024)
    """Chunks of one slot that the bus has not taken yet; past it the engine is held back."""
    load_timeout_s: float = Field(default=300.0, gt=0)
    """How long an engine may take to load and warm up."""
    step_timeout_s: float = Field(default=60.0, gt=0)
    """An engine that says nothing for so long, while it has something to speak, is replaced."""
    restart_delay_s: float = Field(default=0.5, gt=0, le=60)
    """Pause before a lost engine is replaced; doubles with every failure in a row, up to 30 s."""
    leave_after_s: float = Field(default=15.0, gt=0)
    """A slot without an engine for so long leaves the group, so that others take its partitions."""
    revoke_drain_s: float = Field(default=5.0, gt=0)
    """How long a rebalance waits for takes in hand; those still running go on if their partition stays here."""
    keep_alive_s: float = Field(default=1_800.0, gt=0)
    """An engine idle for so long speaks something short, so that its device stays awake."""


class WorkerSettings(CommonSettings):
    """Everything `voxbus synth` reads."""

    synth: SynthSettings = SynthSettings()
