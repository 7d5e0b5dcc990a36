"""The tone engine: pace, and faults on demand."""

import os
import signal
import time

import numpy as np
import pytest

from infra.voices import load_catalogue
from synth_consumer.engines.protocol import TakeFailed, TakeFinished, TaskRefusedError
from synth_consumer.engines.settings import ToneSettings
from synth_consumer.engines.tone import ToneEngine
from tests.engine_driver import drive, speak, task


def engine(**settings: object) -> ToneEngine:
    return ToneEngine(ToneSettings.model_validate(settings), load_catalogue())


def test_length_follows_the_text() -> None:
    tone = engine(chars_per_second=5)

    assert len(speak(tone, task("t", "好" * 50)).pcm) / tone.sample_rate == pytest.approx(10.0, rel=0.01)
    assert len(speak(tone, task("t", "a" * 50)).pcm) / tone.sample_rate == pytest.approx(3.4, rel=0.05)


def test_sounds_like_a_tone_of_the_voice() -> None:
    tone = engine()
    pcm = speak(tone, task("t", "好" * 20)).pcm
    spectrum = np.abs(np.fft.rfft(pcm))
    loudest_hz = float(np.argmax(spectrum)) * tone.sample_rate / len(pcm)

    assert 150 < loudest_hz < 900
    assert 0.1 < float(np.sqrt((pcm**2).mean())) < 0.4


def test_a_second_of_sound_costs_what_the_setting_says_whatever_the_lanes() -> None:
    tone = engine(realtime_factor=0.2, chars_per_second=5, lanes=2)
    cpu, wall = time.process_time(), time.monotonic()

    drive(tone, [task("one", "好" * 5), task("two", "好" * 5)])

    assert 0.3 < time.monotonic() - wall < 5
    assert time.process_time() - cpu < 0.3, "it waits without computing"


def test_a_paced_step_is_short_so_that_a_cancel_is_soon_seen() -> None:
    tone = engine(realtime_factor=4.0)
    tone.join(task("t", "好" * 100))

    assert tone._block / tone.sample_rate * 4.0 <= 0.2


def test_lanes_take_turns() -> None:
    tone = engine(lanes=2)
    tone.join(task("one", "好" * 20))
    tone.join(task("two", "好" * 20))

    assert [tone.step()[0].take_id for _ in range(4)] == ["one", "two", "one", "two"]


def test_markers_are_text_unless_asked_for() -> None:
    outcome = speak(engine(), task("t", "⟦crash⟧好"))

    assert outcome.ends == [TakeFinished("t")]


@pytest.mark.parametrize("text", ["⟦nan⟧", "⟦nan⟧ 你好"])
def test_nan(text: str) -> None:
    assert np.isnan(speak(engine(faults=True), task("t", text, dialect="mandarin")).pcm).all()


def test_silence_and_clipping() -> None:
    tone = engine(faults=True)

    assert not speak(tone, task("t", "⟦silence⟧好")).pcm.any()
    assert np.abs(speak(tone, task("t", "⟦clip⟧好")).pcm).min() == 1.0


def test_truncation_is_told() -> None:
    assert speak(engine(faults=True), task("t", "⟦truncate⟧好")).ends == [TakeFinished("t", truncated=True)]


def test_out_of_memory_harms_no_other() -> None:
    outcomes = drive(engine(faults=True, lanes=2), [task("bad", "⟦oom⟧好"), task("good", "好")])

    assert isinstance(outcomes["bad"].ends[0], TakeFailed)
    assert outcomes["bad"].ends[0].code == "gpu_out_of_memory"
    assert outcomes["good"].ends == [TakeFinished("good")]


def test_refusal() -> None:
    with pytest.raises(TaskRefusedError):
        engine(faults=True).join(task("t", "⟦refuse⟧好"))


def test_an_error_in_a_step() -> None:
    tone = engine(faults=True)
    tone.join(task("t", "⟦raise⟧好"))

    with pytest.raises(RuntimeError):
        tone.step()


@pytest.mark.parametrize("text", ["⟦crash⟧好", "⟦crash⟧" + "好" * 50])
def test_a_crash_comes_after_the_first_sound(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGKILL)
        raise Killed

    monkeypatch.setattr(os, "kill", kill)
    tone = engine(faults=True)
    tone.join(task("t", text))

    assert len(tone.step()) == 1
    with pytest.raises(Killed):
        tone.step()
