"""Whose turn it is when interactive and bulk jobs both wait. Pure."""

from dataclasses import dataclass, field

from schemas.codes import Priority


@dataclass(slots=True)
class Turns:
    """Interactive goes first; after every `run` interactive jobs one bulk job is due, so bulk always moves on.

    Some lanes may be kept free of bulk, so that an interactive job that comes while only bulk waited finds a lane.
    """

    lanes: int
    run: int = 3  # interactive jobs between two guaranteed bulk jobs: bulk has one start in run + 1
    reserved: int = 0  # lanes that bulk never takes
    _since_bulk: int = field(default=0, init=False)

    def resize(self, lanes: int, reserved: int | None) -> None:
        """The engine has so many lanes from now on.

        Args:
            lanes: 0 while there is no engine.
            reserved: by hand; None: a quarter. One lane always remains for bulk.
        """
        self.lanes = lanes
        self.reserved = max(0, min(lanes - 1, lanes // 4 if reserved is None else reserved))

    def order(self, *, busy: int, busy_bulk: int) -> tuple[Priority, ...]:
        """Which queues to ask for the next job, in this order; empty when no lane is free.

        Args:
            busy: lanes taken now.
            busy_bulk: those of them that speak bulk jobs.
        """
        if busy >= self.lanes:
            return ()
        if busy_bulk >= max(1, self.lanes - self.reserved):
            return (Priority.INTERACTIVE,)
        if self._since_bulk >= self.run:
            return (Priority.BULK, Priority.INTERACTIVE)
        return (Priority.INTERACTIVE, Priority.BULK)

    def took(self, priority: Priority) -> None:
        """A job of this queue was taken."""
        self._since_bulk = 0 if priority is Priority.BULK else min(self._since_bulk + 1, self.run)
