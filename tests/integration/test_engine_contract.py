"""What every engine must do, run against each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth_consumer.engines.protocol import SpeechEngine, TakeFinished, TaskRefusedError
from synth_consumer.engines.registry import ENGINE_NAMES, create
from synth_consumer.engines.settings import ChatttsSettings, EnginesSettings
from tests.engine_driver import EN, ZH, drive, speak, task

LANES = 2
_PARAMS = [pytest.param(name, marks=[pytest.mark.chattts] if name == "chattts" else []) for name in ENGINE_NAMES]


@pytest.fixture(scope="module", params=_PARAMS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpeechEngine]:
    settings = EnginesSettings()
    if request.param == "chattts":
        settings = EnginesSettings(
            chattts=ChatttsSettings(assets=str(_assets(tmp_path_factory)), device="cpu", threads=1)
        )
    made = create(request.param, settings, lanes=LANES)
    made.load()
    made.warm_up()
    yield made
    made.close()


def _assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.chattts_assets import write_assets

    return write_assets(tmp_path_factory.mktemp("chattts"))


def test_tells_what_it_is(engine: SpeechEngine) -> None:
    assert engine.lanes == LANES
    assert engine.sample_rate in {22_050, 24_000}
    assert engine.revision
    assert engine.revision != "not loaded"


def test_idle_step_is_empty(engine: SpeechEngine) -> None:
    assert list(engine.step()) == []


@pytest.mark.parametrize("text", [ZH, EN, "100%", "好", "a"])
def test_speaks(engine: SpeechEngine, text: str) -> None:
    outcome = speak(engine, task("t", text))

    assert outcome.ends == [TakeFinished("t")]
    assert all(block.dtype == np.float32 and block.ndim == 1 and len(block) for block in outcome.blocks)
    assert max(map(len, outcome.blocks)) <= engine.sample_rate, "no block is longer than a second"
    assert np.isfinite(outcome.pcm).all()
    assert 0.01 < np.abs(outcome.pcm).max() <= 1.0
    assert outcome.progress == sorted(outcome.progress)
    assert outcome.progress[0] > 0
    assert outcome.progress[-1] == pytest.approx(1.0)


def test_first_sound_comes_before_the_last_sentence(engine: SpeechEngine) -> None:
    outcome = speak(engine, task("t", ZH * 4))

    assert len(outcome.blocks) > 1
    assert outcome.progress[0] < 0.5


def test_many_takes_share_few_lanes_and_each_sounds_as_alone(engine: SpeechEngine) -> None:
    tasks = [
        task(f"t{n}", (ZH, EN)[n % 2], seed=n % 3, voice=("male1", "female2")[n % 2]) for n in range(2 * LANES + 2)
    ]

    together = drive(engine, tasks)

    for one in tasks:
        assert together[one.take_id].ends == [TakeFinished(one.take_id)]
        assert np.array_equal(together[one.take_id].pcm, speak(engine, one).pcm), one


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"voice": "nobody"}, "unsupported_voice"),
        ({"dialect": "klingon"}, "unsupported_dialect"),
        ({"text": "，。!"}, "text_not_speakable"),
        ({"text": ""}, "text_not_speakable"),
    ],
)
def test_a_refused_task_leaves_the_others_unharmed(engine: SpeechEngine, changes: dict[str, Any], code: str) -> None:
    alone = speak(engine, task("good")).pcm

    outcomes = drive(engine, [task("good"), task("bad", **{"text": ZH, **changes})])

    assert outcomes["bad"].refused == code
    assert np.array_equal(outcomes["good"].pcm, alone)


def test_a_refused_task_takes_no_lane(engine: SpeechEngine) -> None:
    for _ in range(2 * LANES):
        with pytest.raises(TaskRefusedError):
            engine.join(task("bad", voice="nobody"))

    assert list(engine.step()) == []


def test_cancel_frees_the_lane_without_an_event(engine: SpeechEngine) -> None:
    alone = speak(engine, task("stays")).pcm
    engine.join(task("goes", ZH * 20))
    engine.step()

    engine.cancel("goes")
    engine.cancel("never was")

    # The driver fails on an event of a take that it did not join.
    assert np.array_equal(speak(engine, task("stays")).pcm, alone)
    assert list(engine.step()) == []


def test_speed_is_heard(engine: SpeechEngine) -> None:
    slow, usual, fast = (speak(engine, task("t", speed=speed)).pcm for speed in (0, 5, 9))

    assert not np.array_equal(slow, usual)
    if engine.name != "chattts":  # noise in place of weights knows no pace
        assert len(slow) > 1.5 * len(usual)
        assert len(fast) < 0.75 * len(usual)


def test_voices_differ(engine: SpeechEngine) -> None:
    sounds = {speak(engine, task("t", voice=voice)).pcm.tobytes() for voice in ("female1", "female2", "male1", "male2")}

    assert len(sounds) == 4


def test_a_new_engine_says_the_same(engine: SpeechEngine) -> None:
    before = speak(engine, task("t")).pcm
    revision = engine.revision

    engine.close()
    engine.load()

    assert np.array_equal(speak(engine, task("t")).pcm, before)
    assert engine.revision == revision
