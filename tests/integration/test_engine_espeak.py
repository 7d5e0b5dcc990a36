"""espeak-ng, listened to by measure."""

import os
import signal
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from infra.voices import load_catalogue
from synth_consumer.engines.espeak import speaker
from synth_consumer.engines.espeak.engine import EspeakEngine
from synth_consumer.engines.espeak.library import EspeakError, EspeakLibrary, Utterance
from synth_consumer.engines.espeak.link import SpeakerLink
from synth_consumer.engines.protocol import EngineUnavailableError, TakeFinished
from synth_consumer.engines.settings import EspeakSettings
from tests.engine_driver import speak, task


@pytest.fixture(scope="module")
def espeak() -> Iterator[EspeakEngine]:
    engine = EspeakEngine(EspeakSettings(), load_catalogue())
    engine.load()
    yield engine
    engine.close()


def seconds(engine: EspeakEngine, text: str, **changes: object) -> float:
    return len(speak(engine, task("t", text, **changes)).pcm) / engine.sample_rate


@pytest.mark.parametrize(
    ("text", "dialect", "least_s", "most_s"),
    [
        ("你好，欢迎致电客服中心。", "mandarin", 2.0, 5.0),
        ("你好，歡迎致電客服中心。", "cantonese", 1.5, 5.0),
        ("Hello, welcome to the service center.", "english", 1.5, 4.0),
        ("100%", "mandarin", 0.8, 3.0),
        ("2026年11月23日", "mandarin", 2.0, 7.0),
        ("2026-11-23", "english", 1.5, 8.0),
    ],
)
def test_length_is_that_of_speech(espeak: EspeakEngine, text: str, dialect: str, least_s: float, most_s: float) -> None:
    assert least_s < seconds(espeak, text, dialect=dialect) < most_s


def test_sounds_like_speech(espeak: EspeakEngine) -> None:
    pcm = speak(espeak, task("t", "你好，欢迎致电客服中心。今天天气很好。")).pcm
    power = np.abs(np.fft.rfft(pcm)) ** 2
    hz = np.fft.rfftfreq(len(pcm), 1 / espeak.sample_rate)
    frames = pcm[: len(pcm) // 1102 * 1102].reshape(-1, 1102)  # 50 ms
    loudness = np.sqrt((frames**2).mean(axis=1))

    assert 0.03 < float(np.sqrt((pcm**2).mean())) < 0.3
    assert power[(hz > 80) & (hz < 4_000)].sum() > 0.9 * power.sum(), "the voice lies below 4 kHz"
    assert (loudness < 0.01).mean() > 0.05, "there are pauses"
    assert (np.abs(pcm) > 0.999).mean() < 1e-4, "nothing is clipped flat"


def test_dialects_read_the_same_text_differently(espeak: EspeakEngine) -> None:
    mandarin, cantonese = (speak(espeak, task("t", "你好吗", dialect=d)).pcm for d in ("mandarin", "cantonese"))

    assert mandarin.tobytes() != cantonese.tobytes()


def test_english_inside_chinese_is_read_by_the_english_voice(espeak: EspeakEngine) -> None:
    mixed = task("t", "麦克风叫microphone吗")

    voices = [utterance.voice for utterance, _ in espeak._utterances(mixed)]
    assert voices == ["cmn+f1", "en-us+f1", "cmn+f1"]
    assert seconds(espeak, mixed.text) > seconds(espeak, "麦克风叫吗") + 0.4


def test_the_first_second_comes_at_the_first_step(espeak: EspeakEngine) -> None:
    espeak.join(task("t", "今天天气很好，我们去公园走走吧。" * 300))
    first = espeak.step()
    espeak.cancel("t")

    assert len(first) == 1
    assert len(first[0].pcm) == espeak.sample_rate  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "<speak><audio src='/etc/passwd'/>好</speak>",
        "[[h@'loU]] 好",
        "好\x01\x02\x05坏",
        "好\x00坏",
        "a" * 5_000,
        "9" * 2_000,
        "ไทย عربي हिन्दी 한국어 日本語",
        "𠮷野家",
    ],
)
def test_odd_texts_do_no_harm(espeak: EspeakEngine, text: str) -> None:
    outcome = speak(espeak, task("odd", text, language="zh", dialect="mandarin"))

    assert len(outcome.ends) == 1
    assert speak(espeak, task("good")).ends == [TakeFinished("good")]


def test_markup_is_read_and_not_obeyed(espeak: EspeakEngine) -> None:
    marked = "<prosody rate='x-slow'>good day</prosody>"

    assert seconds(espeak, marked) > 1.5 * seconds(espeak, "good day")


def test_a_killed_speaker_is_replaced(espeak: EspeakEngine) -> None:
    before = speak(espeak, task("t")).pcm
    assert espeak._link is not None
    process = espeak._link._process

    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    assert np.array_equal(speak(espeak, task("t")).pcm, before)


def test_the_speaker_ends_with_its_engine() -> None:
    engine = EspeakEngine(EspeakSettings(), load_catalogue())
    engine.load()
    assert engine._link is not None
    process = engine._link._process

    engine.close()

    assert process.returncode == 0


def test_an_utterance_that_fails_costs_only_itself() -> None:
    link = SpeakerLink(timeout_s=5)
    try:
        with pytest.raises(EspeakError, match="no voice"):
            link.speak([Utterance("nowhere", "good", 175, 50, 80)])
        assert len(link.speak([Utterance("en-us", "good", 175, 50, 80)])[0]) > 1_000
    finally:
        link.close()


@pytest.mark.parametrize(
    ("end", "said"), [(lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"), (signal.pause, "SIGALRM")]
)
def test_a_text_that_kills_or_hangs_the_library_costs_only_its_fork(end: Callable[[], object], said: str) -> None:
    class Library:
        def speak(self, _: Utterance) -> bytes:
            end()
            return b""

    out = BytesIO()
    speaker._speak_in_fork(Library(), [Utterance("cmn", "好", 175, 50, 80)], out, 1)  # type: ignore[arg-type]

    assert out.getvalue().startswith(speaker.ERROR)
    assert said in out.getvalue()[speaker.HEADER.size :].decode()


def test_an_unknown_variant_in_the_catalogue_is_told_at_load(tmp_path: Path) -> None:
    file = tmp_path / "voices.toml"
    dialects = '[dialects]\nenglish = "en"\n[engines]\nespeak = ["english"]\n'
    file.write_text(dialects + '[voices.a]\nespeak = {variant = "f99"}\n')
    engine = EspeakEngine(EspeakSettings(), load_catalogue(str(file)))

    with pytest.raises(EngineUnavailableError, match="f99"):
        engine.load()
    engine.close()


def test_a_data_path_that_the_library_would_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import espeakng_loader

    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: "/" + "x" * 200)
    with pytest.raises(EspeakError, match="shorter path"):
        EspeakLibrary()
