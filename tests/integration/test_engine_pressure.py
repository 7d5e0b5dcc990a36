"""The ChatTTS engine on small weights when memory runs out in the middle of its work."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.voices import load_catalogue
from synth_consumer.engines.chattts.engine import ChatttsEngine
from synth_consumer.engines.protocol import EngineEvent, LanesChanged, TakeFinished
from synth_consumer.engines.settings import ChatttsSettings
from synth_consumer.worker.engine_host import EngineHost
from synth_consumer.worker.frames import Audio, Join
from tests.chattts_assets import write_assets
from tests.chattts_oracle import package
from tests.engine_driver import Outcome, drive, speak, task

pytestmark = pytest.mark.chattts

TASKS = [task(f"t{n}", "你好。今天好。", seed=n) for n in range(8)]


def loaded(folder: Path, lanes: int, early_sound: bool = True) -> ChatttsEngine:
    settings = ChatttsSettings(assets=str(folder), device="cpu", threads=1, early_sound=early_sound)
    engine = ChatttsEngine(settings, load_catalogue(), lanes=lanes)
    engine.load()
    return engine


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def expected(assets: Path) -> dict[str, Outcome]:
    return drive(loaded(assets, 1), TASKS)


def no_memory() -> Exception:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory (as the test asked)")


def failing_once(work: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = iter(range(1_000_000))

    def wrapped(*args: Any) -> Any:
        if next(calls) == at:
            raise no_memory()
        return work(*args)

    return wrapped


def unharmed(outcomes: dict[str, Outcome], expected: dict[str, Outcome]) -> None:
    for name, outcome in outcomes.items():
        assert outcome.ends == [TakeFinished(name)]
        assert np.array_equal(outcome.pcm, expected[name].pcm), name


@pytest.mark.parametrize("most", [1, 3, 5])
def test_takes_wait_for_memory_and_sound_as_ever(
    assets: Path, expected: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    engine = loaded(assets, 8)
    assert engine._decoder is not None
    real, said, step = engine._decoder._rows.advance, [], engine.step

    def advance(runs: Any, stretches: Any) -> Any:
        if len(runs) > most:
            raise no_memory()
        return real(runs, stretches)

    def watched() -> list[EngineEvent]:
        events = list(step())
        said.extend(event.lanes for event in events if isinstance(event, LanesChanged))
        return events

    monkeypatch.setattr(engine._decoder._rows, "advance", advance)
    monkeypatch.setattr(engine, "step", watched)

    unharmed(drive(engine, TASKS), expected)
    assert said
    assert min(said) <= most


@pytest.mark.parametrize("place", ["_advance", "_rows._hiddens", "_rows._said", "_begin"])
@pytest.mark.parametrize("at", [0, 3, 20, 33])
def test_memory_that_runs_out_once_harms_nobody(
    assets: Path, expected: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, place: str, at: int
) -> None:
    engine = loaded(assets, 3)
    *parts, name = place.split(".")
    owner = attrgetter(".".join(parts))(engine._decoder) if parts else engine._decoder
    monkeypatch.setattr(owner, name, failing_once(getattr(owner, name), at))

    unharmed(drive(engine, TASKS), expected)


@pytest.mark.parametrize("at", [0, 1, 3, 12])
@pytest.mark.parametrize("place", ["choice", "vocoder"])
def test_memory_that_runs_out_in_the_middle_of_a_work_harms_nobody(
    assets: Path, expected: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, place: str, at: int
) -> None:
    from synth_consumer.engines.chattts import sampling, vocoding

    if place == "choice":
        monkeypatch.setattr(sampling, "_cut", failing_once(sampling._cut, at))
    else:
        monkeypatch.setattr(vocoding._Residual, "feed", failing_method(vocoding._Residual.feed, at))

    unharmed(drive(loaded(assets, 3), TASKS), expected)


def failing_method(work: Callable[..., Any], at: int) -> Callable[..., Any]:
    once = failing_once(work, at)

    def method(*args: Any) -> Any:
        return once(*args)  # a plain function, so that it is bound as a method

    return method


def test_the_one_that_cannot_go_on_alone_ends(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(assets, 4)
    assert engine._decoder is not None
    real = engine._decoder._rows.advance

    def advance(runs: Any, stretches: Any) -> Any:
        if any(run.sampling.seed // 10 == 2 for run in runs):  # another try has another seed
            raise no_memory()
        return real(runs, stretches)

    monkeypatch.setattr(engine._decoder._rows, "advance", advance)
    outcomes = drive(engine, [task(f"t{n}", "你好。", seed=10 * n) for n in range(8)])

    assert [name for name, outcome in outcomes.items() if outcome.failed] == ["t2"]
    assert outcomes["t2"].failed is not None
    assert outcomes["t2"].failed.code == "gpu_out_of_memory"


def test_a_recording_that_runs_out_of_memory_changes_nobody(assets: Path) -> None:
    from synth_consumer.engines.chattts.decode import Decoder
    from synth_consumer.engines.chattts.prompts import speech_prompt
    from synth_consumer.engines.chattts.sampling import Sampling
    from synth_consumer.engines.chattts.weights import fuse

    chat = package(assets)
    speaker = chat.sample_random_speaker()
    failing = failing_once(lambda work: work, 0)

    def recorder(work: Callable[[], None]) -> Callable[[], None]:
        work()
        work()
        return failing(work)  # type: ignore[no-any-return]

    said = []
    for chosen in (None, recorder):
        decoder = Decoder(fuse(chat), 2, 512, recorder=chosen)
        run = decoder.join(speech_prompt(chat, "好", speaker, ""), Sampling(3, min_tokens=20), 20)
        failures = 0
        while not decoder.idle:
            try:
                decoder.step()
            except RuntimeError:
                failures += 1
        said.append((run.tokens, failures))

    assert said[1] == (said[0][0], 1)


def test_more_lanes_than_a_product_has_rows(assets: Path) -> None:
    many = [task(f"t{n}", "你好。", seed=n) for n in range(132)]
    together = drive(loaded(assets, 132), many)
    alone = loaded(assets, 1)

    for one in (many[0], many[131]):
        assert np.array_equal(together[one.take_id].pcm, speak(alone, one).pcm)


@pytest.mark.parametrize(("early_sound", "tokens"), [(True, 72 // 4), (False, 61)])
def test_the_first_frame_comes_before_the_packages_72_tokens(tmp_path: Path, early_sound: bool, tokens: int) -> None:
    """A quarter of them; without early sound as soon as what is exact is long enough."""
    from synth_consumer.worker.settings import SynthSettings

    synth = SynthSettings()
    engine = loaded(write_assets(tmp_path, "never-ends", depth=(12, 8)), 1, early_sound)
    frames: list[Any] = []
    host = EngineHost(engine, frames.append, first_chunk_s=synth.first_chunk_s, chunk_s=synth.chunk_s)
    host.handle(Join(task("t", "今天天气很好")))
    while not any(isinstance(frame, Audio) for frame in frames):
        host.step()

    assert engine._held[0].run is not None
    assert len(engine._held[0].run.run.tokens) <= tokens
