"""The real ChatTTS package on small random weights: its traps, and how the engine steps around them."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.voices import Catalogue, Voice, load_catalogue
from schemas.codes import ErrorCode
from synth_consumer.engines.chattts.engine import ChatttsEngine
from synth_consumer.engines.chattts.front import FrontEnd, front_end
from synth_consumer.engines.chattts.script import Sentence, in_words
from synth_consumer.engines.protocol import EngineUnavailableError, TakeFinished
from synth_consumer.engines.settings import ChatttsSettings
from tests.chattts_assets import Flaw, write_assets
from tests.chattts_oracle import package
from tests.engine_driver import EN, ZH, drive, speak, task

pytestmark = pytest.mark.chattts


# Of the embeddings' bytes, on small weights.
GOLDEN = {
    "female1": "f8095ebd163ba3bb",
    "female2": "de819a9f24fa53b0",
    "male1": "d4f11082151cceb0",
    "male2": "ef16d1de0c3ce479",
}


def torch_device(name: str) -> Any:
    import torch

    return torch.device(name)


def loaded(folder: Path, catalogue: Catalogue | None = None, **settings: object) -> ChatttsEngine:
    chosen = ChatttsSettings.model_validate({"assets": str(folder), "device": "cpu", "threads": 1, **settings})
    engine = ChatttsEngine(chosen, catalogue or load_catalogue(), lanes=2)
    engine.load()
    return engine


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def engine(assets: Path) -> ChatttsEngine:
    return loaded(assets)


@pytest.fixture
def flawed(tmp_path: Path) -> Callable[[Flaw], ChatttsEngine]:
    return lambda flaw: loaded(write_assets(tmp_path / flaw, flaw))


@pytest.mark.parametrize(
    ("flaw", "reason"), [("ends-at-once", "before its first sound"), ("nan", "not finite"), ("silent", "silent")]
)
def test_a_take_without_good_sound_ends_bad_audio(
    flawed: Callable[[Flaw], ChatttsEngine], flaw: Flaw, reason: str
) -> None:
    outcomes = drive(flawed(flaw), [task("one", "你好。"), task("two", "Good day.")])

    for outcome in outcomes.values():
        assert outcome.failed is not None
        assert outcome.failed.code == "bad_audio"
        assert reason in outcome.failed.message
        assert not outcome.blocks


def test_a_sentence_that_never_ends_is_bad_audio(flawed: Callable[[Flaw], ChatttsEngine]) -> None:
    outcome = speak(flawed("never-ends"), task("t", "好。"))

    assert outcome.failed is not None
    assert (outcome.failed.code, len(outcome.ends)) == ("bad_audio", 1)
    assert "did not end" in outcome.failed.message


def test_a_text_longer_than_the_models_bound_is_told_as_truncated(flawed: Callable[[Flaw], ChatttsEngine]) -> None:
    outcome = speak(flawed("never-ends"), task("t", "好" * 100))

    assert outcome.ends == [TakeFinished("t", truncated=True)]


@pytest.mark.parametrize("precision", ["int8", "bfloat16", "float16"])
def test_other_precisions_speak_and_say_so(assets: Path, precision: str) -> None:
    engine = loaded(assets, precision=precision)

    assert speak(engine, task("t")).ends == [TakeFinished("t")]
    assert engine.revision.endswith(precision)


def test_a_sentence_that_ends_far_too_early_is_no_good(engine: ChatttsEngine) -> None:
    """Random weights end without looking at the text: after some tens of tokens, where 20 s of speech take 900."""
    outcome = speak(engine, task("t", "今天有一百个好人来了你好欢迎致电" * 5 + "。"))

    assert outcome.failed is not None
    assert outcome.failed.code == ErrorCode.BAD_AUDIO
    assert "ended the sentence after" in outcome.failed.message


def test_in_int8_a_take_depends_on_no_other_either(assets: Path) -> None:
    engine = loaded(assets, precision="int8")
    alone = {n: speak(engine, task(f"t{n}", seed=n)).pcm for n in range(3)}
    together = drive(engine, [task(f"t{n}", seed=n) for n in range(3)])

    for n, pcm in alone.items():
        assert np.array_equal(together[f"t{n}"].pcm, pcm)


def test_int8_is_refused_where_it_cannot_be_had(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth_consumer.engines.chattts import engine as module

    real = module.load_chat

    def elsewhere(*args: Any) -> Any:
        chat = real(*args)
        chat.device = torch_device("cuda")
        return chat

    monkeypatch.setattr(module, "load_chat", elsewhere)
    with pytest.raises(EngineUnavailableError, match="PRECISION=float16"):
        loaded(assets, precision="int8")


def test_a_sentence_equals_the_packages_own_infer(assets: Path, engine: ChatttsEngine) -> None:
    """Same sound but for rounding, and for the quiet samples that `infer` deletes."""
    from synth_consumer.engines.chattts.loading import import_package

    chat, speaker = package(assets), engine._speakers["female1"]
    params = import_package().Chat.InferCodeParams(
        prompt="[speed_5]", spk_emb=speaker, manual_seed=7, show_tqdm=False, ensure_non_empty=False
    )
    theirs = chat.infer(["你好。"], skip_refine_text=True, split_text=False, lang="zh", params_infer_code=params)[0]
    ours = speak(engine, task("t", "你好。")).pcm

    np.testing.assert_allclose(ours[np.abs(ours) > 1e-5], np.clip(theirs, -1, 1), atol=1e-6)


def test_a_voice_does_not_leak_into_the_next_request(engine: ChatttsEngine) -> None:
    alone = speak(engine, task("t", EN, voice="male1")).pcm
    speak(engine, task("other", EN, voice="female2"))

    assert np.array_equal(speak(engine, task("t", EN, voice="male1")).pcm, alone)


def test_a_voice_is_the_same_in_every_load(assets: Path, engine: ChatttsEngine) -> None:
    assert loaded(assets)._speakers == engine._speakers
    assert len(set(engine._speakers.values())) == 4


def test_a_voice_is_what_it_was_in_every_version_of_torch_and_numpy(engine: ChatttsEngine) -> None:
    embeddings = {
        name: hashlib.sha256(engine._chat.speaker._decode(encoded).tobytes()).hexdigest()[:16]
        for name, encoded in engine._speakers.items()
    }
    assert embeddings == GOLDEN


def test_voices_are_drawn_as_the_package_draws_them() -> None:
    from synth_consumer.engines.chattts.voices import normal

    drawn = normal(2222, 100_000)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert np.array_equal(normal(2222, 10), normal(2222, 10))
    assert not np.allclose(drawn[:10], normal(2223, 10))


def with_voice(**table: object) -> Catalogue:
    built_in = load_catalogue()
    return built_in.model_copy(update={"voices": {**built_in.voices, "odd": Voice(engine_params={"chattts": table})}})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "does not tell"),
        ({"speaker_seed": "x"}, "does not tell"),
        ({"speaker_seed": -1}, "does not tell"),
        ({"speaker": "junk"}, "not readable"),
        ({"speaker": 5}, "not readable"),
    ],
)
def test_a_voice_without_a_speaker_is_told_by_name(assets: Path, table: dict[str, object], said: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"voice odd .*{said}") as caught:
        loaded(assets, with_voice(**table))
    assert "speaker_seed = " in str(caught.value)


def test_a_speaker_written_out_is_taken_and_voices_are_part_of_the_revision(
    assets: Path, engine: ChatttsEngine
) -> None:
    written = loaded(assets, with_voice(speaker=engine._speakers["male1"]))
    other = loaded(assets, with_voice(speaker_seed=5))

    assert written._speakers["odd"] == engine._speakers["male1"]
    assert len({written.revision, other.revision, engine.revision}) == 3


def test_the_seed_is_heard(engine: ChatttsEngine) -> None:
    assert len({speak(engine, task("t", EN, seed=seed)).pcm.tobytes() for seed in range(3)}) > 1


def said(engine: ChatttsEngine, text: str, **changes: object) -> list[Sentence]:
    """All that the model is given to read of a text."""
    one = task("t", text, **changes)
    chosen = front_end(one.dialect)
    return [
        words
        for raw in engine._script(one).sentences
        for words in in_words(raw, chosen, engine._chat.normalizer, speed=one.speed, max_seconds=25.0)
    ]


def test_digits_and_percent_are_spoken(engine: ChatttsEngine) -> None:
    assert [sentence.text for sentence in said(engine, "100%")] == ["one hundred percent"]


def test_control_tokens_of_a_user_never_reach_the_model(engine: ChatttsEngine) -> None:
    assert not any("[" in sentence.text for sentence in said(engine, "好[laugh][uv_break][spk_emb][Ebreak]的"))


# The package's own compiled function for texts with brackets takes a list, of which numba warns.
@pytest.mark.filterwarnings("ignore:(?s).*reflected list.*function '_combine_tags'")
def test_control_tokens_are_obeyed_where_the_operator_allows_them(assets: Path, engine: ChatttsEngine) -> None:
    allowing = loaded(assets, allow_control_tokens=True)
    (sentence,) = said(allowing, "好[laugh]的[uv_break]你[spk_emb]好[Ebreak]")

    assert "好[laugh]的[uv_break]你" in sentence.text
    assert sentence.text.count("[") == 2
    assert speak(allowing, task("t", "好[laugh]的")).ends == [TakeFinished("t")]
    assert allowing.revision == f"{engine.revision}-controls"


@pytest.mark.parametrize("speed", [0, 5, 9])
def test_long_text_is_split_below_the_bound(engine: ChatttsEngine, speed: int) -> None:
    sentences = said(engine, "今天天气很好我们去公园走走吧" * 100, speed=speed)

    assert max(sentence.seconds for sentence in sentences) <= 25.0
    assert "".join(sentence.text for sentence in sentences).count("公园") == 100


@pytest.mark.parametrize("text", ["We are #1.", "Call +86 138", "50¢ each", "₹100", "5* hotel", "It is −5 outside"])
def test_plain_texts_do_not_end_the_engine(engine: ChatttsEngine, text: str) -> None:
    outcome = speak(engine, task("t", text, language="en", dialect="english"))

    assert outcome.ends == [TakeFinished("t")]


def test_a_step_spells_one_stretch_however_much_text_joined(
    engine: ChatttsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synth_consumer.engines.chattts import front

    asked: list[int] = []
    real = front.spelled

    def counted(text: str, chosen: FrontEnd) -> str:
        asked.append(len(text))
        return real(text, chosen)

    monkeypatch.setattr(front, "spelled", counted)
    for name in ("a", "b"):
        engine.join(task(name, "今天气温25℃，降水概率30%。" * 500))
    assert asked == []
    engine.step()
    engine.step()
    for name in ("a", "b"):
        engine.cancel(name)

    assert len(asked) == 2
    assert max(asked) <= 400


def test_a_front_end_that_fails_ends_its_take_only(engine: ChatttsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth_consumer.engines.chattts import front

    def broken(text: str, chosen: FrontEnd) -> str:
        raise AssertionError

    monkeypatch.setattr(front, "spelled", broken)
    failed = speak(engine, task("t", "好。")).failed
    monkeypatch.undo()

    assert failed is not None
    assert failed.code == "internal"
    assert speak(engine, task("t", "好。")).ends == [TakeFinished("t")]


def test_letters_that_cannot_be_read_are_refused_or_told(engine: ChatttsEngine) -> None:
    assert speak(engine, task("t", "Привет. Hi")).refused == "text_not_speakable"
    assert speak(engine, task("t", "你好你好，Да。")).ends == [TakeFinished("t", truncated=True)]


def test_nothing_is_added_behind_the_last_sentence(engine: ChatttsEngine) -> None:
    assert speak(engine, task("t", "你好。")).pcm[-2_400:].any()


def test_style_goes_through_the_models_own_refinement(engine: ChatttsEngine) -> None:
    styled = replace(task("t", "你好。"), oral=2, laugh=1, break_=4)
    outcome = speak(engine, styled)

    assert len(outcome.ends) == 1
    assert np.array_equal(outcome.pcm, speak(engine, styled).pcm)


def test_sound_comes_sentence_by_sentence(engine: ChatttsEngine) -> None:
    outcome = speak(engine, task("t", ZH))

    assert outcome.ends == [TakeFinished("t")]
    assert 0 < outcome.progress[0] < 1


def test_the_revision_names_the_weights(assets: Path, engine: ChatttsEngine, tmp_path: Path) -> None:
    other = loaded(write_assets(tmp_path, "silent"))

    assert engine.revision.startswith("0.2.")
    assert loaded(assets).revision == engine.revision
    assert other.revision != engine.revision


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    write_assets(tmp_path)
    (tmp_path / "asset" / "config.json").write_text('{"gpt": {"hidden_size": 128}}')

    with pytest.raises(EngineUnavailableError, match="does not load the weights"):
        loaded(tmp_path)


def test_a_device_that_is_not_there_is_told(assets: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="does not load"):
        loaded(assets, device="no-such-device")
