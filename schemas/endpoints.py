"""Named webhook endpoints: what all notifiers must know of each."""

from typing import ClassVar

from schemas.base import Event, Timestamp


class EndpointChanged(Event):
    """A named endpoint was disabled or enabled, or fails since a while. The newest of a name holds."""

    ce_type: ClassVar[str] = "voxbus.endpoint.changed.v1"

    name: str
    """As it stands in the endpoints file."""
    disabled: bool = False
    """Nothing is delivered to it."""
    reason: str = ""
    """Why it is disabled, in words."""
    failing_since: Timestamp | None = None
    """No attempt succeeded from this moment on; absent when it works, or fails only since a short while."""
    at: Timestamp

    @property
    def partition_key(self) -> str:
        """The name."""
        return self.name
