"""Rows times a matrix of weights: as exact as the package, or in whole numbers of eight bits."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

# Rows that the packed layout is best at.
_PACKED_FOR = 16
# Activations of a row fill the whole numbers 1 to 255 around this one.
_ZERO, _MOST = 128, 127


class Product(Protocol):
    """Rows times a matrix (out, in)."""

    width: int  # in
    like: Tensor  # has the dtype and the device of the rows it takes

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out)."""
        ...


class FloatProduct:
    """In the weights' own precision.

    On the CPU in float32 the matrix is laid out for oneDNN, which multiplies 4 to 16 rows twice as fast as the plain
    layout (measured on AVX-512) and gives a row the same bits at more counts of rows.
    """

    def __init__(self, weight: Tensor) -> None:
        self.width = int(weight.shape[1])
        self.like = weight[:1, :1].clone()
        packs = copies(weight.device, weight.dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR) if packs else None
        self._weight = None if packs else weight

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Product`."""
        if self._packed is None:
            return functional.linear(rows, self._weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, "none", [], "")
        return product


class Int8Product:
    """Weights in eight bits with a scale per output, rows with a scale each: about 1% off, a quarter of the memory.

    Each row is scaled to one common range beforehand, sums of whole numbers are exact, and scales are applied by us,
    always in the same order, so that a row depends on no other, whatever their count. For the CPU.
    """

    def __init__(self, weight: Tensor) -> None:
        self.width = int(weight.shape[1])
        self.like = torch.zeros(1, 1)
        # A row of zeros has no scale of its own.
        self._scale = (weight.abs().amax(1).float() / _MOST).clamp_min(torch.finfo(torch.float32).tiny)
        whole = torch.round(weight / self._scale[:, None]).to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self._ones, self._zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.long)

    def __call__(self, rows: Tensor) -> Tensor:
        """See `Product`."""
        reach = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        whole = torch.round(rows / reach * _MOST).add_(_ZERO).to(torch.uint8)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, _ZERO, self._packed, self._ones, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        # Whole numbers hide what is no number; its reach does not.
        return product.mul_(self._scale).mul_(reach / _MOST)


def copies(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a `FloatProduct` lays its weight out anew, so that it keeps nothing of what it was given."""
    return device.type == "cpu" and dtype == torch.float32 and bool(torch.backends.mkldnn.is_available())


class Joiner:
    """Makes one product of several matrices that take the same rows."""

    def __init__(self, make: Callable[[Tensor], Product], dtype: torch.dtype, place: Tensor | None) -> None:
        """Choose the manner.

        Args:
            make: of the joined matrix.
            dtype: it is brought to this before.
            place: where matrices are joined whose product copies them: freed places between those that stay would
                fragment the heap (217 MB of the published model's). None: each is joined in a place of its own.
        """
        self.dtype = dtype
        self._make = make
        self._place = place

    def __call__(self, matrices: Sequence[Tensor]) -> Product:
        """The product of (out, in) matrices, one after another."""
        if self._place is None:
            return self._make(torch.cat(list(matrices)).to(self.dtype))
        rows, width = sum(len(matrix) for matrix in matrices), matrices[0].shape[1]
        joined = self._place[: rows * width].view(rows, width)
        torch.cat(list(matrices), out=joined)
        return self._make(joined)
