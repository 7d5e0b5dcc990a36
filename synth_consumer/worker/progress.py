"""When a running synthesis is worth a progress event. Pure."""

from dataclasses import dataclass

from schemas.codes import PERCENT_AT, State

_BEGIN = PERCENT_AT[State.SYNTHESIZING]
END_PERCENT = 70
"""Where synthesis ends on the road of a request; transcoding goes on from there."""
_STEP = (END_PERCENT - _BEGIN) // 10


@dataclass(slots=True)
class ProgressMeter:
    """Percent of one job: never falls, whatever take speaks; at most ten events after the first, a second apart."""

    every_s: float = 1.0
    _said: int | None = None
    _said_at: float = 0.0

    def begin(self, now: float) -> int | None:
        """A take begins: the percent to say, None when a former take said it."""
        if self._said is not None:
            return None
        self._said, self._said_at = _BEGIN, now
        return _BEGIN

    def moved(self, share: float, now: float) -> int | None:
        """The take is this far (0 to 1): the percent to say, None when it is not worth an event.

        Args:
            share: of the take believed done.
            now: monotonic seconds.
        """
        percent = _BEGIN + int((END_PERCENT - _BEGIN) * min(1.0, max(0.0, share)))
        if self._said is None or percent < self._said + _STEP or now - self._said_at < self.every_s:
            return None
        self._said, self._said_at = percent, now
        return percent
