"""The base of every event, and the few field types that several events share."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of all that changes the sound, in hex; see `schemas.fingerprint`."""

RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
"""Chosen by the client, or given at the door."""

Timestamp = AwareDatetime
"""A moment in UTC; RFC 3339 on the wire."""


def utc_now() -> datetime:
    """The current moment, aware."""
    return datetime.now(UTC)


class Event(BaseModel):
    """Something that happened, as it stands on a topic. Readers ignore fields they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    ce_type: ClassVar[str]
    """CloudEvents `type`: `voxbus.<noun>.<past participle>.v<major>`."""

    @property
    def partition_key(self) -> str:
        """What the message is keyed by; everything about one key arrives in order."""
        raise NotImplementedError(f"{type(self).__name__} names no key")
