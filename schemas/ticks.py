"""The clock of the tables: Faust tables change only while an event of their partition is processed."""

from typing import ClassVar

from schemas.base import Event, Timestamp


class Ticked(Event):
    """Sent to every partition of the tick topic, so that each owner looks for rows that are due."""

    ce_type: ClassVar[str] = "voxbus.clock.ticked.v1"

    partition: int
    at: Timestamp

    @property
    def partition_key(self) -> str:
        """The partition's number; the sender addresses the partition itself."""
        return str(self.partition)
