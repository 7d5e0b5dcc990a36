"""Whether a take sounds like speech at all. What fails here is never stored.

Pure. The bounds are generous on purpose: they catch an engine that went wrong (silence, noise at full scale, a stuck
value, babble without end, nothing after the first word), not a voice that somebody may dislike.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from uploader.spool import Samples

_FULL_SCALE = 32_768
_BLOCK = 1 << 20  # samples looked at together, so that a take on disk stays there

SILENT_PEAK = 328
"""Below -40 dBFS nothing of speech is heard in a quiet room."""
SILENT_FRAME_RMS = 104
"""-50 dBFS: a frame of 20 ms below counts as silence."""
MAX_SILENCE_SHARE = 0.95
"""Of a take that pauses longer than its text's marks explain."""
CLIPPED_AT = 32_760
"""Samples at least this far from zero stand at full scale, rounding allowed."""
MAX_CLIPPED_SHARE = 0.05
"""Loud but healthy speech has well below 1 %."""
MAX_CLIPPED_RUN_S = 0.02
"""A wave that stays at full scale for 20 ms is a square, not a voice."""
MAX_STUCK_RUN_S = 0.5
"""One and the same value, not near zero, for half a second: a constant, not sound."""

# Seconds one written character may take. Ideographs, kana and hangul are whole syllables: 3 to 6 a second are
# usual. Letters of alphabets: 12 to 20 a second are usual, fewer in abbreviations ("www"). Digits in long numbers take
# most ("1,234,567": 0.9 s a digit by the slowest voice). Marks and symbols are a pause, or are read aloud ("%", "@").
SYLLABLE_S = (0.04, 2.0)
LETTER_S = (0.012, 1.2)
DIGIT_S = (0.012, 2.5)
MARK_S = (0.0, 1.2)
PAUSES_S = 10.0
"""Added to the upper bound: breaks, laughter, breath at both ends."""
BREATH_S = 3.0
"""Silence that needs no mark in the text."""
TRUNCATED_FACTOR = 4.0
"""A take its engine admits to have cut may be this many times shorter; shorter still, it is truncated to nothing."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Measured properties of a take."""

    seconds: float
    peak: int  # 0..32768
    silence_share: float  # of frames of 20 ms
    clipped_share: float  # of samples
    clipped_run_s: float  # longest run at full scale
    stuck_run_s: float  # longest run of one value that is not near zero

    @property
    def silent_s(self) -> float:
        """Seconds of silence."""
        return self.seconds * self.silence_share

    @property
    def audible_s(self) -> float:
        """Seconds that are not silence."""
        return self.seconds - self.silent_s


def measure(samples: Samples, sample_rate: int) -> Sound:
    """Measure a take.

    Args:
        samples: int16, shape (n,).
        sample_rate: Hz.
    """
    frame = max(1, sample_rate // 50)
    peak = quiet = frames = clipped = 0
    clipped_run, stuck_run = _LongestRun(), _LongestRun()
    previous = 0
    for block in _blocks(samples, frame):
        wide = block.astype(np.int32)
        loud = np.abs(wide)
        peak = max(peak, int(loud.max()))
        at_full_scale = loud >= CLIPPED_AT
        clipped += int(at_full_scale.sum())
        clipped_run.feed(at_full_scale)
        stuck_run.feed((np.diff(wide, prepend=previous) == 0) & (loud > SILENT_PEAK))
        previous = int(wide[-1])
        whole = block[: len(block) // frame * frame].astype(np.float64).reshape(-1, frame)
        frames += len(whole)
        quiet += int((np.sqrt(np.mean(whole**2, axis=1)) < SILENT_FRAME_RMS).sum())
    count = max(1, len(samples))
    return Sound(
        seconds=len(samples) / sample_rate,
        peak=peak,
        silence_share=quiet / max(1, frames),
        clipped_share=clipped / count,
        clipped_run_s=clipped_run.longest / sample_rate,
        stuck_run_s=stuck_run.longest / sample_rate,
    )


def length_bounds(text: str) -> tuple[float, float]:
    """Seconds a text may take: (least that is heard, longest in all) still believable, at any speed setting."""
    bounds = [_bounds(character) for character in text]
    return sum(least for least, _ in bounds), sum(most for _, most in bounds) + PAUSES_S


def fault_of(sound: Sound, text: str, *, truncated: bool) -> str | None:
    """Why the take must not be stored, in words for the client; None when it may be.

    Args:
        sound: from `measure`.
        text: what was to be spoken, canonical.
        truncated: the engine said that it stopped before the text ended.
    """
    faults = (
        (sound.seconds <= 0, "the audio is empty"),
        (sound.peak < SILENT_PEAK, "the audio is silent"),
        (
            sound.silence_share > MAX_SILENCE_SHARE and sound.silent_s > _pauses_s(text),
            f"the audio is silent for {sound.silence_share:.0%} of its time",
        ),
        (
            sound.clipped_share > MAX_CLIPPED_SHARE,
            f"the audio is clipped: {sound.clipped_share:.0%} of it at full scale",
        ),
        (
            sound.clipped_run_s > MAX_CLIPPED_RUN_S,
            f"the audio is clipped flat for {sound.clipped_run_s * 1000:.0f} ms",
        ),
        (sound.stuck_run_s > MAX_STUCK_RUN_S, f"the audio stands still for {sound.stuck_run_s:.1f} s"),
    )
    fault = next((message for present, message in faults if present), None)
    return fault or _length_fault(sound, text, truncated=truncated)


def _length_fault(sound: Sound, text: str, *, truncated: bool) -> str | None:
    least, longest = length_bounds(text)
    heard = f"{sound.audible_s:.1f} s of the audio are heard"
    if truncated and sound.audible_s < least / TRUNCATED_FACTOR:
        return f"{heard} after it was cut: too little of the text"
    if not truncated and sound.audible_s < least:
        return f"{heard}: too short for the text (at least {least:.1f} s)"
    if sound.seconds > longest:
        return f"the audio is {sound.seconds:.1f} s long: too long for the text (at most {longest:.1f} s)"
    return None


def _pauses_s(text: str) -> float:
    return BREATH_S + MARK_S[1] * sum(1 for character in text if not character.isalnum())


def _bounds(character: str) -> tuple[float, float]:
    if _is_syllable(character):
        return SYLLABLE_S
    if character.isdigit():
        return DIGIT_S
    return LETTER_S if character.isalpha() else MARK_S


class _LongestRun:
    """Length of the longest run of True, over blocks fed one after another."""

    def __init__(self) -> None:
        self.longest = 0
        self._open = 0  # run that reaches the end of the last block

    def feed(self, flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        breaks = np.flatnonzero(~flags)
        if len(breaks) == 0:
            self._open += len(flags)
            self.longest = max(self.longest, self._open)
            return
        inner = int(np.diff(breaks).max()) - 1 if len(breaks) > 1 else 0
        self.longest = max(self.longest, self._open + int(breaks[0]), inner)
        self._open = len(flags) - 1 - int(breaks[-1])
        self.longest = max(self.longest, self._open)


def _blocks(samples: Samples, frame: int) -> Iterator[Samples]:
    size = max(frame, _BLOCK // frame * frame)
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _is_syllable(character: str) -> bool:
    point = ord(character)
    return (
        0x3040 <= point <= 0x30FF  # kana
        or 0x3400 <= point <= 0x9FFF  # CJK ideographs
        or 0xAC00 <= point <= 0xD7AF  # hangul
        or 0xF900 <= point <= 0xFAFF
        or 0x20000 <= point <= 0x3FFFF
    )
