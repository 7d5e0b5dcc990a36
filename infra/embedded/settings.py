"""Settings of `voxbus up` itself: `VOXBUS_EMBEDDED__…`."""

from pydantic import Field

from infra.settings import CommonSettings, Fragment


class EmbeddedFragment(Fragment):
    """What only the embedded stack reads."""

    audio_topic_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Above this size the audio on the bus is thrown away at the next start, once the uploader has read all of it.
    The embedded broker does not enforce retention."""
    start_timeout_s: float = Field(default=300.0, gt=0)
    """How long one stage may take until it is ready; reading back what the bus holds takes longer with its history."""


class EmbeddedSettings(CommonSettings):
    """Everything `voxbus up` reads."""

    embedded: EmbeddedFragment = EmbeddedFragment()
