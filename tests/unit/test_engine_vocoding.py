"""Sound in pieces is the sound of the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.chattts_assets import write_assets

pytestmark = pytest.mark.chattts


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With a decoder as deep as the published one, so that its reach over time is the same."""
    import json

    from synth_consumer.engines.chattts.assets import find_assets
    from synth_consumer.engines.chattts.loading import load_chat

    folder: Path = write_assets(tmp_path_factory.mktemp("assets"), depth=(12, 8))
    assert json.loads((folder / "asset" / "config.json").read_text())["decoder"]["n_layer"] == 12
    return load_chat(find_assets(str(folder)), "cpu", 1)


def hiddens(tokens: int) -> Any:
    import torch

    return torch.randn(tokens, 64, generator=torch.Generator().manual_seed(tokens))


def whole(chat: Any, states: Any) -> np.ndarray[Any, Any]:
    return np.asarray(chat._decode_to_wavs([states.clone()], True))[0]


def pieces(chat: Any, states: Any, sizes: list[int]) -> list[np.ndarray[Any, Any]]:
    from synth_consumer.engines.chattts.vocoding import Vocoder

    vocoder, told, at = Vocoder(chat), [], 0
    for size in sizes:
        told.append(vocoder.feed(states[at : at + size], at + size >= len(states)))
        at += size
    assert at >= len(states)
    return told


@pytest.mark.parametrize("tokens", [1, 2, 5, 52, 53, 54, 60, 130])
@pytest.mark.parametrize("size", [1, 7, 24, 60, 500])
def test_pieces_joined_are_the_whole(chat: Any, tokens: int, size: int) -> None:
    states = hiddens(tokens)
    told = np.concatenate(pieces(chat, states, [size] * (-(-tokens // size))))
    expected = whole(chat, states)

    assert told.shape == expected.shape
    np.testing.assert_allclose(told, expected, atol=2e-6 * max(1.0, float(np.abs(expected).max())))


def test_the_blocks_matter_here(chat: Any) -> None:
    """A sample hears tokens far away (even in noise), but none beyond the reach that pieces wait for."""
    states = hiddens(120)
    changed = states.clone()
    changed[60] += 1
    heard = np.flatnonzero(np.abs(whole(chat, states) - whole(chat, changed)) > 1e-7) / 512

    assert heard.min() < 60 - 10
    assert heard.min() >= 60 - 53
    assert heard.max() <= 60 + 54


def test_sound_comes_as_early_as_it_can_and_each_token_once(chat: Any) -> None:
    told = pieces(chat, hiddens(200), [1] * 200)
    lengths = [len(piece) for piece in told]

    assert next(n for n, length in enumerate(lengths, 1) if length) <= 55
    assert max(lengths[:-1]) <= 512
    assert sum(lengths) == 200 * 512 - 256


def test_an_end_that_brings_no_token_brings_the_rest(chat: Any) -> None:
    states = hiddens(80)
    from synth_consumer.engines.chattts.vocoding import Vocoder

    vocoder = Vocoder(chat)
    told = [vocoder.feed(states, False), vocoder.feed(states[:0], True)]

    np.testing.assert_allclose(np.concatenate(told), whole(chat, states), atol=2e-6)


def test_the_work_is_that_of_each_piece_alone(chat: Any) -> None:
    """No frame goes twice through a convolution: what is kept is a margin, whatever came before."""
    from synth_consumer.engines.chattts.vocoding import Vocoder

    vocoder = Vocoder(chat)
    kept = []
    for _ in range(20):
        vocoder.feed(hiddens(24), False)
        seen = [getattr(step, "_frames", step) for step in vocoder._steps]
        kept.append(sum(part._seen.shape[-1] for part in seen if getattr(part, "_seen", None) is not None))

    assert len(set(kept[4:])) == 1
    assert vocoder._spectrum is not None
    assert vocoder._spectrum.shape[-1] <= 8


@pytest.mark.parametrize("tokens", [40, 60, 130, 131, 132])
def test_early_sound_stays_near_the_whole_and_makes_no_step(chat: Any, tokens: int) -> None:
    """The numbers of decision 9. Random weights as deep as the published: reach is the same, loudness is not."""
    from synth_consumer.engines.chattts.vocoding import EarlySound, Vocoder

    states, early = hiddens(tokens), EarlySound(chat)
    joined = np.concatenate([*early.first(states[: early.tokens]), early.rest(Vocoder(chat).feed(states, True))])
    expected, heard = whole(chat, states), 8 * 512
    assert joined.shape == expected.shape
    wrong, right = joined[:heard] - expected[:heard], expected[:heard]

    assert _loudness(wrong) < 0.015 * _loudness(right)
    assert np.abs(wrong).max() < 0.03 * np.abs(expected).max()
    # Worst where the look-ahead ends, and almost nothing where it is longest.
    assert _loudness(wrong[:512]) < 0.001 * _loudness(right)
    # From sample to sample no further than the whole itself goes there, but for a hundredth.
    fade = slice(heard - 257, heard + 2)
    steps, steps_of_whole = np.abs(np.diff(joined[fade])), np.abs(np.diff(expected[fade]))
    assert steps.max() < 1.02 * steps_of_whole.max()


def _loudness(pcm: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2)))


def test_early_sound_joins_the_exact_sound(chat: Any) -> None:
    from synth_consumer.engines.chattts.vocoding import EarlySound

    states, early = hiddens(130), EarlySound(chat)
    told = early.first(states[:14])
    assert len(told[0]) > 3_000
    assert early.first(states[:14]) == []
    for piece in pieces(chat, states, [3] * 44):
        told.append(early.rest(piece))
    expected, joined = whole(chat, states), np.concatenate(told)

    assert joined.shape == expected.shape, "no gap, no repeat"
    np.testing.assert_allclose(joined[8 * 512 :], expected[8 * 512 :], atol=2e-6)
