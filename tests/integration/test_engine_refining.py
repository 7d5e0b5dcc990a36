"""The text refinement as one lane among others: the package's own words for the same seed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.voices import load_catalogue
from synth_consumer.engines.chattts.engine import ChatttsEngine
from synth_consumer.engines.chattts.script import Sentence
from synth_consumer.engines.protocol import TakeFinished
from synth_consumer.engines.settings import ChatttsSettings
from tests.chattts_assets import write_assets
from tests.chattts_oracle import package, refined_by_the_package
from tests.engine_driver import EN, ZH, drive, speak, task

pytestmark = pytest.mark.chattts

TEXTS = ["你好今天天气很好", "hello good day", "好"]
STYLED = [replace(task(f"t{n}", text, seed=n), oral=2, laugh=n % 3, break_=4) for n, text in enumerate([ZH, EN, ZH])]


def loaded(folder: Path, lanes: int) -> ChatttsEngine:
    engine = ChatttsEngine(ChatttsSettings(assets=str(folder), device="cpu", threads=1), load_catalogue(), lanes=lanes)
    engine.load()
    return engine


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def engine(assets: Path) -> ChatttsEngine:
    return loaded(assets, 4)


def test_words_are_the_packages_beside_other_lanes(assets: Path, engine: ChatttsEngine) -> None:
    from synth_consumer.engines.chattts.decode import Decoder
    from synth_consumer.engines.chattts.prompts import speech_prompt
    from synth_consumer.engines.chattts.refining import refine
    from synth_consumer.engines.chattts.sampling import Sampling
    from synth_consumer.engines.chattts.weights import fuse

    chat = package(assets)
    decoder, words = Decoder(fuse(chat), 4, 1_024), engine._text_vocabulary()
    speech = speech_prompt(chat, "好", engine._speakers["female1"], "")
    decoder.join(speech, Sampling(1, min_tokens=400), 400)
    styled = [replace(task("t", text, seed=seed), oral=2, laugh=0, break_=6) for seed, text in enumerate(TEXTS)]
    going = [refine(chat, decoder, words, Sentence(one.text, 1.0, 0.0, spelled=True), one) for one in styled]
    while any(one.run.end is None for one in going):
        decoder.step()

    said = [[token for (token,) in one.run.tokens] for one in going]
    assert said == [refined_by_the_package(chat, one.text, "[oral_2][laugh_0][break_6]", one.seed) for one in styled]
    assert sum(map(len, said)) > 30


def test_a_step_is_a_token_of_every_lane_while_a_sentence_is_rewritten(assets: Path) -> None:
    engine = loaded(assets, 2)
    for one in (task("plain", ZH), replace(STYLED[0], text="你好。", seed=0)):
        engine.join(one)
    while not all(lane.run is not None and lane.run.run.tokens for lane in engine._held):
        engine.step()
    plain, rewriting = (lane.run.run for lane in engine._held if lane.run is not None)
    steps = 0
    while True:
        before = len(plain.tokens), len(rewriting.tokens)
        engine.step()
        if plain.end is not None or rewriting.end is not None:
            break
        assert (len(plain.tokens), len(rewriting.tokens)) == (before[0] + 1, before[1] + 1)
        steps += 1

    assert rewriting.vocabulary is engine._words
    assert steps >= 5


def test_styled_takes_sound_the_same_whatever_the_lanes(assets: Path, engine: ChatttsEngine) -> None:
    alone = drive(loaded(assets, 1), STYLED)
    together = drive(engine, [*STYLED, task("plain", EN)])

    for one in STYLED:
        assert together[one.take_id].ends == [TakeFinished(one.take_id)]
        assert np.array_equal(together[one.take_id].pcm, alone[one.take_id].pcm)


def test_a_sentence_is_rewritten_once_whatever_the_tries(
    engine: ChatttsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synth_consumer.engines.chattts import refining, speaking

    asked: list[int] = []
    real, real_begin = refining.refine, speaking.begin

    def counted(*args: Any) -> Any:
        asked.append(1)
        return real(*args)

    def failing_first(*args: Any) -> Any:
        if args[6] == STYLED[0].seed:  # another try has another seed
            raise speaking.BadAudioError("as the test asked")
        return real_begin(*args)

    monkeypatch.setattr(refining, "refine", counted)
    monkeypatch.setattr(speaking, "begin", failing_first)
    outcome = speak(engine, replace(STYLED[0], text="好。"))

    assert outcome.ends == [TakeFinished("t0")]
    assert len(asked) == 1


def test_a_cancelled_refinement_frees_its_lane(engine: ChatttsEngine) -> None:
    engine.join(STYLED[0])
    while engine._held[0].run is None:
        engine.step()
    engine.step()
    engine.cancel("t0")

    assert engine._decoder is not None
    assert engine._decoder.idle
    assert engine._decoder.free == 4
