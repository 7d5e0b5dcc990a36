"""How fast the installation speaks while it has something to speak. Pure."""

from collections import deque

_WINDOW_S = 60.0  # of work, however long ago
_ENOUGH_S = 1.0  # of work, to go by
_FIRST_SPEED = 1.0  # audio seconds a second, until some was heard


class Speedometer:
    """Audio seconds a second of work. Work while jobs wait counts before work while lanes are free."""

    def __init__(self) -> None:
        self._any, self._pressed = _Window(), _Window()

    def heard(self, audio_s: float, work_s: float, *, pressed: bool) -> None:
        """So much audio took so long; `pressed`: with every lane busy, since some jobs waited."""
        self._any.add(audio_s, work_s)
        if pressed:
            self._pressed.add(audio_s, work_s)

    @property
    def speed(self) -> float:
        """All slots together."""
        for window in (self._pressed, self._any):
            if window.work_s > _ENOUGH_S:
                return max(0.01, window.audio_s / window.work_s)
        return _FIRST_SPEED


class _Window:
    def __init__(self) -> None:
        self.audio_s = self.work_s = 0.0
        self._heard: deque[tuple[float, float]] = deque()

    def add(self, audio_s: float, work_s: float) -> None:
        self._heard.append((audio_s, work_s))
        self.audio_s += audio_s
        self.work_s += work_s
        while self.work_s > _WINDOW_S and len(self._heard) > 1:
            former_audio_s, former_work_s = self._heard.popleft()
            self.audio_s -= former_audio_s
            self.work_s -= former_work_s
