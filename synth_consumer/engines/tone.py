"""Test tones in place of speech: a note per character, the same bytes for the same task on every machine.

For load tests, as its cost per second of audio is a setting, and for tests of what happens when an engine fails.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from infra.voices import Catalogue
from synth_consumer.engines.admission import admit
from synth_consumer.engines.faults import Fault, FaultMarkers
from synth_consumer.engines.protocol import AudioProduced, EngineEvent, Pcm, SpeechEngine, SpeechTask, TakeFinished
from synth_consumer.engines.sentences import spoken_seconds
from synth_consumer.engines.settings import EnginesSettings, ToneSettings

_SAMPLE_RATE = 24_000
_AMPLITUDE = 0.4
# One Chinese character is the unit of pace; see `sentences`.
_UNIT_S = 0.22
_PAUSE_UNITS = 0.6
# A step sleeps at most about this long, so that a cancel or a new take does not wait.
_MAX_STEP_S = 0.2
# A step that woke late is made up for by the next, up to this.
_MAX_LATENESS_S = 0.05
_RAMP_S = 0.01


@dataclass(slots=True)
class _Lane:
    task: SpeechTask
    blocks: Iterator[Pcm]
    length: int
    fault: Fault | None
    sent: int = 0


class ToneEngine:
    """See the module; `SpeechEngine` tells what each method does."""

    name = "tone"
    sample_rate = _SAMPLE_RATE

    def __init__(self, settings: ToneSettings, catalogue: Catalogue, lanes: int | None = None) -> None:
        self.revision = f"1-{settings.chars_per_second:g}"
        self.lanes = lanes or settings.lanes
        self._settings = settings
        self._catalogue = catalogue
        self._markers = FaultMarkers(active=settings.faults)
        self._turns: deque[_Lane] = deque()
        self._due = 0.0

    def load(self) -> None:
        """Nothing to bring."""

    def warm_up(self) -> None:
        """Nothing is slow the first time."""

    def join(self, task: SpeechTask) -> None:
        """Give the task a lane."""
        admit(task, self.name, self._catalogue)
        fault = self._markers.find(task)
        text = self._markers.strip(task.text)
        notes = _notes(text, task, self._settings.chars_per_second)
        self._turns.append(_Lane(task, self._blocks(notes), sum(n for _, n in notes), fault))

    def step(self) -> Sequence[EngineEvent]:
        """Speak one block of the lane whose turn it is."""
        if not self._turns:
            return []
        lane = self._turns.popleft()
        if lane.fault and (replaced := lane.fault.instead_of_block(lane.task.take_id, lane.sent)) is not None:
            return replaced
        pcm = next(lane.blocks)
        if lane.fault:
            pcm = lane.fault.spoil(pcm)
        self._pace(len(pcm))
        lane.sent += len(pcm)
        events: list[EngineEvent] = [AudioProduced(lane.task.take_id, pcm, lane.sent / lane.length)]
        if lane.sent < lane.length or (lane.fault and lane.fault.crashes):
            self._turns.append(lane)
        else:
            events.append(TakeFinished(lane.task.take_id, truncated=bool(lane.fault and lane.fault.truncates)))
        return events

    def cancel(self, take_id: str) -> None:
        """Free the lane."""
        self._turns = deque(lane for lane in self._turns if lane.task.take_id != take_id)

    def close(self) -> None:
        """Let go of every lane."""
        self._turns.clear()

    @property
    def _block(self) -> int:
        """Samples of one step: a second, or fewer when that would take long."""
        factor = self._settings.realtime_factor
        return int(_SAMPLE_RATE * min(1.0, _MAX_STEP_S / factor if factor else 1.0)) or 1

    def _blocks(self, notes: list[tuple[float, int]]) -> Iterator[Pcm]:
        held: list[Pcm] = []
        count = 0
        for frequency, samples in notes:
            held.append(_note(frequency, samples))
            count += samples
            if count >= self._block:
                joined = np.concatenate(held)
                cut = count - count % self._block
                yield from np.split(joined[:cut], cut // self._block)
                held, count = [joined[cut:]], count - cut
        if count:
            yield np.concatenate(held)

    def _pace(self, samples: int) -> None:
        # The lanes share one clock, as they would share one device; time lost while idle is not made up.
        cost = samples / _SAMPLE_RATE * self._settings.realtime_factor
        now = time.monotonic()
        self._due = max(self._due, now - _MAX_LATENESS_S) + cost
        if self._due > now:
            time.sleep(self._due - now)


def make(settings: EnginesSettings, catalogue: Catalogue, lanes: int | None) -> SpeechEngine:
    """The engine, for the registry."""
    return ToneEngine(settings.tone, catalogue, lanes)


def _notes(text: str, task: SpeechTask, chars_per_second: float) -> list[tuple[float, int]]:
    """Frequency (Hz, 0 for a pause) and samples of each character's note."""
    pace = chars_per_second * 2.0 ** ((task.speed - 5) / 5)
    base = _base_frequency(task.voice, task.seed)
    notes = []
    for character in text:
        units = spoken_seconds(character) / _UNIT_S
        frequency = base * 2.0 ** (ord(character) % 13 / 12) if units else 0.0
        notes.append((frequency, max(1, round((units or _PAUSE_UNITS) / pace * _SAMPLE_RATE))))
    return notes


def _base_frequency(voice: str, seed: int) -> float:
    digest = hashlib.sha256(f"{voice}:{seed}".encode()).digest()
    return 160.0 + digest[0]


@lru_cache(maxsize=512)
def _note(frequency: float, samples: int) -> Pcm:
    if not frequency:
        return np.zeros(samples, np.float32)
    at = np.arange(samples) / _SAMPLE_RATE
    wave = np.sin(2 * np.pi * frequency * at) + 0.3 * np.sin(4 * np.pi * frequency * at)
    ramp = np.clip(np.minimum(at, at[::-1]) / _RAMP_S, 0.0, 1.0)
    note: Pcm = (_AMPLITUDE / 1.3 * wave * ramp).astype(np.float32)
    return note
