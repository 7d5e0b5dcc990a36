"""What this gateway has just put on the bus and has not heard back as a job. Pure bookkeeping.

Between a 202 and its job on the bus lie two hops. In a burst thousands are on that way, and who comes last must not be
told that nothing is queued.
"""

from dataclasses import dataclass

from schemas.codes import Priority

_EXPECTED_WITHIN_S = 2.0  # what was not heard by then was no new job: a repeat, refused, or the bus is slow
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Announcement:
    priority: Priority
    text_bytes: int
    until: float


class Announced:
    """Requests by fingerprint, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Announcement] = {}
        self._count = dict.fromkeys(Priority, 0)
        self._bytes = dict.fromkeys(Priority, 0)

    def add(self, fingerprint: str, priority: Priority, text_bytes: int, *, now: float) -> None:
        """A request is on the bus. A repeat of one that is on its way changes nothing."""
        self._drop_old(now)
        if len(self._waiting) < _MOST and fingerprint not in self._waiting:
            self._waiting[fingerprint] = _Announcement(priority, text_bytes, now + _EXPECTED_WITHIN_S)
            self._count[priority] += 1
            self._bytes[priority] += text_bytes

    def heard(self, fingerprint: str) -> None:
        """It is a job, or will never be one."""
        one = self._waiting.pop(fingerprint, None)
        if one is not None:
            self._count[one.priority] -= 1
            self._bytes[one.priority] -= one.text_bytes

    def ahead_of(self, priority: Priority, *, now: float) -> tuple[int, int]:
        """How many go before a request of this priority that comes now, and the bytes of their texts together.

        Args:
            priority: interactive ones do not wait for bulk.
            now: of the same clock as in `add`.
        """
        self._drop_old(now)
        before = Priority if priority is Priority.BULK else (Priority.INTERACTIVE,)
        return sum(self._count[each] for each in before), sum(self._bytes[each] for each in before)

    def _drop_old(self, now: float) -> None:
        while self._waiting:
            oldest = next(iter(self._waiting))
            if self._waiting[oldest].until > now:
                return
            self.heard(oldest)
