"""Healthy sound passes, each kind of broken sound is named."""

import numpy as np
import pytest

from tests.uploader_world import RATE, speech
from uploader import checks
from uploader.checks import fault_of, length_bounds, measure
from uploader.spool import Samples

TEXT = "A sentence that takes about three seconds to say."


def fault(samples: Samples, text: str = TEXT, *, truncated: bool = False) -> str | None:
    return fault_of(measure(samples.astype("<i2"), RATE), text, truncated=truncated)


def tone(level: float, seconds: float = 3.0) -> Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    return np.clip(level * np.sin(2 * np.pi * 220 * t), -32_768, 32_767).astype("<i2")


def with_run(value: int, seconds: float) -> Samples:
    samples = speech(3.0).copy()
    samples[RATE : RATE + int(seconds * RATE)] = value
    return samples


def test_speech_passes() -> None:
    assert fault(speech(3.0)) is None
    assert fault(tone(30_000)) is None
    assert fault(np.concatenate([np.zeros(2 * RATE, "<i2"), speech(3.0), np.zeros(2 * RATE, "<i2")])) is None


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0), "the audio is empty"),
        (np.zeros(3 * RATE), "the audio is silent"),
        (np.random.default_rng(0).integers(-200, 200, 3 * RATE), "the audio is silent"),
        (np.concatenate([speech(0.6), np.zeros(30 * RATE)]), "the audio is silent for 98% of its time"),
        (tone(300_000), "the audio is clipped: 9"),
        (np.full(3 * RATE, 32_767), "the audio is clipped: 100%"),
        (with_run(32_767, 0.05), "the audio is clipped flat for 50 ms"),
        (with_run(-32_768, 0.05), "the audio is clipped flat for 50 ms"),
        (with_run(5_000, 0.8), "the audio stands still for 0.8 s"),
    ],
)
def test_broken_sound_is_named(samples: Samples, words: str) -> None:
    found = fault(samples)
    assert found is not None
    assert found.startswith(words)


@pytest.mark.parametrize("block", [480, 1_000, 7_777, 1 << 20])
def test_measuring_in_blocks_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.concatenate([with_run(32_767, 0.05), with_run(5_000, 0.8), np.zeros(RATE, "<i2"), speech(1.0)])
    whole = measure(samples, RATE)
    monkeypatch.setattr(checks, "_BLOCK", block)
    assert measure(samples, RATE) == whole
    assert whole.clipped_run_s == pytest.approx(0.05, abs=0.001)
    assert whole.stuck_run_s == pytest.approx(0.8, abs=0.001)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("你好，欢迎致电客服中心。", (1.2, 6.0)),
        ("你好，欢迎致电客服中心。", (0.6, 12.0)),  # fastest and slowest speed
        ("The quick brown fox jumps over the lazy dog.", (1.0, 8.0)),
        ("www", (0.5, 3.0)),
        ("1,234,567.89", (1.0, 12.0)),
        ("1,234,567,890,123.89", (2.0, 26.0)),
        ("嗯", (0.2, 2.0)),
        ("Hello, 世界!", (0.5, 4.0)),
        ("안녕하세요 여러분", (0.6, 5.0)),
    ],
)
def test_bounds_leave_room_for_how_people_speak(text: str, seconds: tuple[float, float]) -> None:
    shortest, longest = length_bounds(text)
    assert shortest < seconds[0]
    assert seconds[1] < longest


def test_length_must_fit_the_text() -> None:
    long_text = "word " * 200
    assert "too short" in (fault(speech(2.0), long_text) or "")
    assert "too long" in (fault(speech(40.0), "Hi.") or "")


def test_silence_is_not_length() -> None:
    padded = np.concatenate([speech(0.2), np.zeros(4 * RATE)])
    assert "0.2 s of the audio are heard: too short" in (fault(padded) or "")


def test_a_text_of_marks_may_pause_for_long() -> None:
    assert fault(np.concatenate([speech(0.2), np.zeros(40 * RATE)]), "Well" + "." * 100) is None


def test_a_take_cut_by_its_engine_may_be_shorter_but_not_nothing() -> None:
    long_text = "word " * 200
    assert fault(speech(4.0), long_text) is not None
    assert fault(speech(4.0), long_text, truncated=True) is None
    assert "too little of the text" in (fault(speech(0.5), long_text, truncated=True) or "")
