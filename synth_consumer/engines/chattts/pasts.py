"""Where the keys and values of the lanes' pasts are: at fixed places for recorded steps, or in places that grow.

On a CPU reading a long past is what makes a late step slower than an early one. From huge pages it takes an eighth
less time (740 positions of 20 layers, two cores: 5.3 ms against 6.0). A huge page must not be taken for a few positions
of one head; so a lane has one place for all layers, as long as is needed, and moves to one twice as long when it is
full.
"""

import mmap
import sys
from contextlib import suppress
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from synth_consumer.engines.chattts.weights import Model

# Positions of the shortest place: five seconds of speech and its prompt.
_SHORTEST = 256
_HUGE_PAGE = 2 * 2**20


class Pasts(Protocol):
    """Keys and values of all lanes."""

    def of(self, lane: int, positions: int) -> Tensor:
        """A lane's, with room for so many positions: (layers, 2, heads, positions or more, head_dim).

        What was written before is there, in the same place or moved to a longer one; the rest is not filled.

        Raises:
            MemoryError: there is no longer place; what was written stays where it is.
        """
        ...

    def let_go(self, lane: int) -> None:
        """Nothing of this lane is needed any more."""


class FixedPasts:
    """Every lane at full length, always at the same place."""

    def __init__(self, model: Model, lanes: int, positions: int) -> None:
        """Not filled: on the CPU a page costs nothing until it is written."""
        shape = (len(model.layers), 2, lanes, model.heads, positions, model.head_dim)
        self._held = torch.empty(shape, dtype=model.norm.dtype, device=model.norm.device)
        self.keys, self.values = self._held[:, 0], self._held[:, 1]  # (layers, lanes, heads, positions, head_dim)

    def of(self, lane: int, positions: int) -> Tensor:
        """See `Pasts`."""
        assert positions <= self._held.shape[4], "a past longer than its lane"
        return self._held[:, :, lane]

    def let_go(self, lane: int) -> None:
        """Its place stays its own."""


class GrowingPasts:
    """A lane holds as much as its past needs, and nothing while it is free. For the CPU."""

    def __init__(self, model: Model, positions: int) -> None:
        """`positions`: the most of one lane."""
        self._model, self._positions = model, positions
        self._places: dict[int, Tensor] = {}
        self._spare: list[Tensor] = []  # of the shortest, no more than lanes were ever in use: nothing to clear anew

    def of(self, lane: int, positions: int) -> Tensor:
        """See `Pasts`."""
        place = self._places.get(lane)
        if place is None or place.shape[3] < positions:
            longer = self._place(positions)
            if place is not None:
                longer[:, :, :, : place.shape[3]] = place
                self._keep(place)
            self._places[lane] = place = longer
        return place

    def let_go(self, lane: int) -> None:
        """See `Pasts`."""
        place = self._places.pop(lane, None)
        if place is not None:
            self._keep(place)

    def _place(self, positions: int) -> Tensor:
        length = _SHORTEST
        while length < positions:
            length *= 2
        if length == _SHORTEST and self._spare:
            return self._spare.pop()
        model = self._model
        shape = (len(model.layers), 2, model.heads, min(length, self._positions), model.head_dim)
        return _in_huge_pages(shape, model.norm.dtype)

    def _keep(self, place: Tensor) -> None:
        if place.shape[3] == min(_SHORTEST, self._positions):
            self._spare.append(place)


def _in_huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor, in huge pages where the system gives them."""
    count = prod(shape)
    size = count * dtype.itemsize
    if size < _HUGE_PAGE or sys.platform != "linux":
        return torch.empty(shape, dtype=dtype)
    try:
        memory = mmap.mmap(-1, size + _HUGE_PAGE)
    except OSError as error:
        raise MemoryError(f"no {size} bytes for a past") from error
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    # What is in front of the first whole huge page is never touched, and so takes no memory.
    skipped = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % _HUGE_PAGE
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=skipped).view(shape)
