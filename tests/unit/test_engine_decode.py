"""The decode loop against the package's own, and against itself with other lanes, on small random weights."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.chattts_assets import write_assets
from tests.chattts_oracle import Line, ours, theirs

pytestmark = pytest.mark.chattts

LINES = [
    Line("你好。", 0),
    Line("hello good day", 1),
    Line("今天天气很好的", 3, temperature=0.7, top_p=0.9, top_k=5),
    Line("好", 2, fewest=20),
    Line("welcome to the service 你好 good day " * 4, 5),
    Line("a b c", 4, most=9, fewest=9),
    Line("我们欢迎你", 6, temperature=1.0, top_p=1.0, top_k=0),
    Line("时间", 7, fewest=100),
]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from synth_consumer.engines.chattts.assets import find_assets
    from synth_consumer.engines.chattts.loading import load_chat

    folder = write_assets(tmp_path_factory.mktemp("assets"))
    return load_chat(find_assets(str(folder)), "cpu", 1)


@pytest.fixture(scope="module")
def speaker(chat: Any) -> str:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return str(chat.sample_random_speaker())


@pytest.fixture(scope="module")
def model(chat: Any) -> Any:
    from synth_consumer.engines.chattts.weights import fuse

    return fuse(chat)


@pytest.fixture(scope="module")
def make(model: Any) -> Callable[..., Any]:
    from synth_consumer.engines.chattts.decode import Decoder

    return lambda lanes, **options: Decoder(model, lanes, 512, **options)


@pytest.fixture(scope="module")
def solo(chat: Any, make: Callable[..., Any], speaker: str) -> list[Any]:
    return [ours(chat, make(1), [line], speaker)[0] for line in LINES]


def test_tokens_are_the_packages(chat: Any, speaker: str, solo: list[Any]) -> None:
    import torch

    for line, run in zip(LINES, solo, strict=True):
        tokens, hiddens = theirs(chat, line, speaker)
        assert run.tokens == tokens, line
        if tokens:
            torch.testing.assert_close(run.waiting(), hiddens, atol=2e-6, rtol=0)


def test_the_lines_are_not_trivial(solo: list[Any]) -> None:
    from synth_consumer.engines.chattts.runs import End

    assert {run.end for run in solo} >= {End.NATURAL, End.LIMIT}
    assert len({tokens for run in solo for tokens in run.tokens}) > 50


@pytest.mark.parametrize("lanes", [2, 3, 4, 8, 16])
def test_a_result_is_the_same_to_the_bit_whatever_the_other_lanes_do(
    chat: Any, make: Callable[..., Any], speaker: str, solo: list[Any], lanes: int
) -> None:
    import torch

    order = [*range(len(LINES)), *reversed(range(len(LINES)))]
    runs = ours(chat, make(lanes), [LINES[n] for n in order], speaker)

    for n, run in zip(order, runs, strict=True):
        assert run.tokens == solo[n].tokens
        assert torch.equal(run.waiting(), solo[n].waiting())


def test_a_prompt_in_stretches_says_the_same(chat: Any, make: Callable[..., Any], speaker: str) -> None:
    long = LINES[4]
    whole, parts = make(1, prompt_stretch=512), make(1, prompt_stretch=16)

    assert ours(chat, parts, [long], speaker)[0].tokens == ours(chat, whole, [long], speaker)[0].tokens


def test_a_running_lane_gains_a_token_in_every_step_while_a_long_prompt_is_read(
    chat: Any, make: Callable[..., Any], speaker: str
) -> None:
    from synth_consumer.engines.chattts.prompts import speech_prompt
    from synth_consumer.engines.chattts.sampling import Sampling

    decoder = make(2, prompt_stretch=16)
    running = decoder.join(speech_prompt(chat, "好", speaker, ""), Sampling(1, min_tokens=100), 100)
    decoder.step()
    long = decoder.join(speech_prompt(chat, LINES[4].text * 3, speaker, ""), Sampling(2, min_tokens=5), 5)
    read, said = [], []
    while not long.tokens:
        before = len(running.tokens), long.read
        assert running in decoder.step()
        said.append(len(running.tokens) - before[0])
        read.append(long.read - before[1])

    assert len(read) >= 8, "the prompt is long enough to tell"
    assert set(said) == {1}
    assert set(read[:-1]) == {16}
    assert read[-1] <= 16


def test_a_request_that_leaves_frees_its_lane_at_once(chat: Any, make: Callable[..., Any], speaker: str) -> None:
    from synth_consumer.engines.chattts.prompts import speech_prompt
    from synth_consumer.engines.chattts.sampling import Sampling

    decoder = make(2)
    prompt = speech_prompt(chat, "好", speaker, "")
    stays, leaves, reading = decoder.join(prompt, Sampling(1, min_tokens=30), 30), None, None
    leaves = decoder.join(prompt, Sampling(2, min_tokens=30), 30)
    for _ in range(5):
        decoder.step()
    assert decoder.free == 0
    decoder.leave(leaves)
    assert decoder.free == 1
    reading = decoder.join(prompt, Sampling(3), 30)
    decoder.leave(reading)
    decoder.leave(reading)
    assert decoder.free == 1
    while not decoder.idle:
        assert leaves not in decoder.step()
    assert len(stays.tokens) == 30
    assert decoder.free == 2


def test_a_lane_holds_no_more_than_its_positions(chat: Any, model: Any, speaker: str) -> None:
    from synth_consumer.engines.chattts.decode import Decoder
    from synth_consumer.engines.chattts.prompts import speech_prompt
    from synth_consumer.engines.chattts.runs import End
    from synth_consumer.engines.chattts.sampling import Sampling

    prompt = speech_prompt(chat, "好", speaker, "")
    decoder = Decoder(model, 1, prompt.shape[0] + 11)
    run = decoder.join(prompt, Sampling(1, min_tokens=100), 100)
    while not decoder.idle:
        decoder.step()
    assert (len(run.tokens), run.end) == (10, End.LIMIT)
    with pytest.raises(ValueError, match="no room"):
        Decoder(model, 1, prompt.shape[0]).join(prompt, Sampling(1), 5)


def test_recorded_steps_say_the_same(chat: Any, make: Callable[..., Any], speaker: str, solo: list[Any]) -> None:
    """The logic of the graphs: what is recorded once is replayed for whoever is in the lanes then."""
    import torch

    recorded = []

    def recorder(work: Callable[[], None]) -> Callable[[], None]:
        work()  # as a real one does to warm up
        recorded.append(work)
        return work

    runs = ours(chat, make(6, recorder=recorder), LINES * 2, speaker)

    for line, run, alone in zip(LINES * 2, runs, solo * 2, strict=True):
        assert run.tokens == alone.tokens, line
        if run.tokens:
            torch.testing.assert_close(run.waiting(), alone.waiting(), atol=2e-6, rtol=0)
    assert 2 <= len(recorded) <= 4, "one for each bucket of lanes and of length"


def test_memory_goes_round(chat: Any, make: Callable[..., Any], speaker: str) -> None:
    decoder = make(2)
    pasts, noise = decoder._rows._pasts, decoder._sampler(decoder._model.speech)._noise.data_ptr()
    places = set()
    for _ in range(3):
        for run in ours(chat, decoder, LINES[:3], speaker):
            run.take()
            assert run.untaken == 0
        assert not pasts._places
        places |= {place.data_ptr() for place in pasts._spare}
    assert len(places) == 2, "one for each lane, and always the same"
    assert decoder._sampler(decoder._model.speech)._noise.data_ptr() == noise
    assert (decoder.free, decoder._running, len(decoder._reading)) == (2, [], 0)


def test_a_past_that_moves_to_a_longer_place_is_the_same(
    chat: Any, make: Callable[..., Any], speaker: str, solo: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from synth_consumer.engines.chattts import pasts

    monkeypatch.setattr(pasts, "_SHORTEST", 8)
    for line, run, alone in zip(LINES, ours(chat, make(3), LINES, speaker), solo, strict=True):
        assert run.tokens == alone.tokens, line
        if run.tokens:
            assert torch.equal(run.waiting(), alone.waiting())
    assert max(run.length for run in solo) > 64, "some moved more than twice"
