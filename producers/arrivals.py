"""Records of `tts.requests` that name no request, held against what became of them. Pure.

One without an id is published again under one; one that cannot be read becomes a dead letter. Either leaves a trace
of its content, for where it was handled may not be where it was read.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record without a usable id."""

    partition: int
    offset: int
    value: bytes
    until: datetime
    """When dedup must have dealt with it."""

    @property
    def name(self) -> str:
        """Where it lies, as the audit names it."""
        return f"tts.requests/{self.partition}:{self.offset}"

    @property
    def sha256(self) -> str:
        """Of its value, as a dead letter has it."""
        return hashlib.sha256(self.value).hexdigest()

    @property
    def moved_digest(self) -> str:
        """What dedup writes into the header `voxbus_moved` when it publishes the record again under an id."""
        return hashlib.sha256(b"refused\n" + self.value).hexdigest()


class Arrivals:
    """Takes arrivals and traces in any order."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], tuple[str, str, str, datetime]] = {}
        self._traces: set[str] = set()
        self._places: set[tuple[int, int]] = set()

    def came(self, arrival: Arrival) -> None:
        """A record without a usable id; its content is not kept."""
        facts = (arrival.name, arrival.sha256, arrival.moved_digest, arrival.until)
        self._waiting[arrival.partition, arrival.offset] = facts

    def moved(self, digest: str) -> None:
        """A record came again under an id."""
        self._traces.add(digest)

    def dead(self, partition: int, offset: int, sha256: str) -> None:
        """A record of `tts.requests` became a dead letter."""
        self._places.add((partition, offset))
        self._traces.add(sha256)

    def without_trace(self, now: datetime) -> tuple[list[str], list[str]]:
        """Names of those that may still be dealt with, and of those that are lost."""
        waiting = [
            (until > now, name)
            for place, (name, sha256, moved, until) in sorted(self._waiting.items())
            if place not in self._places and not {sha256, moved} & self._traces
        ]
        return [name for still, name in waiting if still], [name for still, name in waiting if not still]
