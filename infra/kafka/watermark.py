"""The contiguous low-watermark: work finishes out of order, offsets move only past finished work.

Pure. One `Watermark` per partition; `WatermarkBook` holds those of an assignment.
"""

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar


class Watermark:
    """The offset up to which everything handed out is finished.

    Offsets are handed out in increasing order, with gaps where the log has them (compaction, transaction markers).
    """

    def __init__(self) -> None:
        self._open: list[int] = []  # handed out, unfinished; ascending
        self._next: int | None = None  # one past the highest offset handed out
        self._committed: int | None = None

    def start(self, offset: int) -> None:
        """An offset was handed out.

        Raises:
            ValueError: it is not above all that was handed out before.
        """
        if not self.follows(offset):
            raise ValueError(f"offset {offset} was handed out already (next is {self._next})")
        self._open.append(offset)
        self._next = offset + 1

    def follows(self, offset: int) -> bool:
        """Whether an offset lies above all that was handed out."""
        return self._next is None or offset >= self._next

    def finish(self, offset: int) -> None:
        """Work on an offset is finished. Finishing twice, or what was never started, changes nothing."""
        index = bisect_left(self._open, offset)
        if index < len(self._open) and self._open[index] == offset:
            del self._open[index]

    @property
    def position(self) -> int | None:
        """What may be committed: the next offset to read after a restart. None before the first start."""
        return self._open[0] if self._open else self._next

    @property
    def uncommitted(self) -> int | None:
        """The position, when it lies past what was last committed."""
        position = self.position
        if position is None or (self._committed is not None and position <= self._committed):
            return None
        return position

    def committed(self, position: int) -> None:
        """A commit went through; positions only move forward."""
        if self._committed is None or position > self._committed:
            self._committed = position

    @property
    def in_flight(self) -> int:
        """How many offsets are handed out and unfinished."""
        return len(self._open)


PartitionT = TypeVar("PartitionT", bound=Hashable)


class WatermarkBook(Generic[PartitionT]):
    """The watermarks of all partitions held. Work that finishes after its partition was lost is forgotten."""

    def __init__(self) -> None:
        self._marks: dict[PartitionT, Watermark] = {}

    def assign(self, partition: PartitionT) -> None:
        """Begin anew with a partition."""
        self._marks[partition] = Watermark()

    def lose(self, partition: PartitionT) -> None:
        """Forget a partition."""
        self._marks.pop(partition, None)

    def start(self, partition: PartitionT, offset: int) -> bool:
        """Hand out an offset; False when the partition is not held."""
        mark = self._marks.get(partition)
        if mark is None:
            return False
        mark.start(offset)
        return True

    def start_all(self, partition: PartitionT, offsets: Sequence[int]) -> bool:
        """Hand out ascending offsets of a held partition; False, and nothing done, when they were handed out before."""
        mark = self._marks[partition]
        if not mark.follows(offsets[0]):
            return False
        for offset in offsets:
            mark.start(offset)
        return True

    def finish(self, partition: PartitionT, offset: int) -> None:
        """Finish an offset of a partition that may be gone by now."""
        mark = self._marks.get(partition)
        if mark is not None:
            mark.finish(offset)

    def uncommitted(self) -> dict[PartitionT, int]:
        """Positions worth committing."""
        found = {partition: mark.uncommitted for partition, mark in self._marks.items()}
        return {partition: position for partition, position in found.items() if position is not None}

    def committed(self, positions: dict[PartitionT, int]) -> None:
        """A commit of these positions went through."""
        for partition, position in positions.items():
            mark = self._marks.get(partition)
            if mark is not None:
                mark.committed(position)

    def in_flight(self, partition: PartitionT | None = None) -> int:
        """Unfinished offsets, of one partition or of all."""
        if partition is not None:
            mark = self._marks.get(partition)
            return mark.in_flight if mark else 0
        return sum(mark.in_flight for mark in self._marks.values())
