"""Places of the lanes' keys and values: what was written stays, in as much memory as it needs."""

import mmap
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.chattts

LAYERS, HEADS, WIDTH = 2, 4, 64


@pytest.fixture
def model() -> Any:
    import torch

    return SimpleNamespace(layers=range(LAYERS), heads=HEADS, head_dim=WIDTH, norm=torch.zeros(HEADS * WIDTH))


@pytest.fixture
def pasts(model: Any) -> Any:
    from synth_consumer.engines.chattts.pasts import GrowingPasts

    return GrowingPasts(model, 1_500)


def filled(pasts: Any, lane: int, positions: int) -> Any:
    """Every position holds its own number and the lane's."""
    import torch

    place = pasts.of(lane, positions)
    place[:, :, :, :positions] = torch.arange(positions)[:, None] + 10_000.0 * lane
    return place


def test_what_was_written_moves_along(pasts: Any) -> None:
    import torch

    first, other = filled(pasts, 3, 256), filled(pasts, 4, 256)
    for positions in (257, 700, 1_500):
        place = pasts.of(3, positions)
        assert place.shape == (LAYERS, 2, HEADS, min(1_500, place.shape[3]), WIDTH)
        assert place.shape[3] >= positions
        expected = (torch.arange(256) + 30_000.0)[:, None].expand(256, WIDTH)
        assert torch.equal(place[:, :, :, :256], expected.expand(LAYERS, 2, HEADS, 256, WIDTH))
        assert pasts.of(3, positions - 1) is place
    assert pasts.of(4, 256) is other
    assert pasts.of(5, 1).data_ptr() == first.data_ptr(), "what a lane left is taken by the next one"


def test_free_lanes_keep_the_shortest_places_only(pasts: Any) -> None:
    for lane in range(3):
        pasts.of(lane, 200)
    pasts.of(2, 1_500)
    for lane in (0, 1, 2, 2, 9):
        pasts.let_go(lane)
    assert [place.shape[3] for place in pasts._spare] == [256] * 3
    assert not pasts._places


def test_a_large_place_begins_with_a_huge_page_and_a_small_one_does_not_need_one(model: Any) -> None:
    import torch

    from synth_consumer.engines.chattts.pasts import GrowingPasts

    large = GrowingPasts(model, 4_096).of(0, 4_096)
    assert large.nbytes >= 2**21
    assert large.data_ptr() % 2**21 == 0
    large.fill_(1.0)  # to its last byte
    assert torch.equal(large[-1, -1, -1, -1], torch.ones(WIDTH))
    assert GrowingPasts(model, 16).of(0, 3).shape[3] == 16


def test_no_memory_is_said_and_loses_nothing(pasts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    place = filled(pasts, 0, 256)

    def refuse(*_args: object) -> object:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match="bytes for a past"):
        pasts.of(0, 1_500)
    monkeypatch.undo()
    assert pasts.of(0, 256) is place
    assert torch.equal(pasts.of(0, 1_500)[0, 0, 0, :256, 0], torch.arange(256.0))


def test_a_system_without_huge_pages_gives_plain_ones(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from synth_consumer.engines.chattts.pasts import GrowingPasts

    monkeypatch.setattr(sys, "platform", "darwin")
    assert GrowingPasts(model, 4_096).of(0, 4_096).shape == (LAYERS, 2, HEADS, 4_096, WIDTH)


def test_fixed_places_are_views_of_what_recorded_steps_see(model: Any) -> None:
    import torch

    from synth_consumer.engines.chattts.pasts import FixedPasts

    fixed = FixedPasts(model, 3, 16)
    fixed.of(1, 16)[:, 0, :, 5] = 7.0
    fixed.let_go(1)
    assert fixed.keys.shape == fixed.values.shape == (LAYERS, 3, HEADS, 16, WIDTH)
    assert torch.equal(fixed.keys[:, 1, :, 5], torch.full((LAYERS, HEADS, WIDTH), 7.0))
    with pytest.raises(AssertionError, match="longer than its lane"):
        fixed.of(1, 17)
