"""Products of rows and weights: whole numbers come close, and a row depends on no other."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.chattts


def made(seed: int, rows: int, inward: int = 64, outward: int = 96) -> tuple[Any, Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outward, inward, generator=generator) * 0.02
    sizes = torch.rand(rows, 1, generator=generator).mul(12).sub(6).exp()  # of rows, over five orders of magnitude
    return weight, torch.randn(rows, inward, generator=generator) * sizes, generator


@pytest.fixture(scope="module")
def int8() -> Callable[[Any], Any]:
    from synth_consumer.engines.chattts.products import Int8Product

    return Int8Product


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 40))
def test_int8_is_within_two_percent_of_each_row(int8: Callable[[Any], Any], seed: int, rows: int) -> None:
    weight, given_rows, _ = made(seed, rows)
    exact = given_rows @ weight.t()
    error = (int8(weight)(given_rows) - exact).norm(dim=1) / exact.norm(dim=1)

    assert float(error.max()) < 0.02


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 40), data=st.data())
def test_a_row_in_int8_is_the_same_whatever_stands_beside_it(
    int8: Callable[[Any], Any], seed: int, rows: int, data: st.DataObject
) -> None:
    import torch

    weight, given_rows, _ = made(seed, rows)
    product = int8(weight)
    row = data.draw(st.integers(0, rows - 1))

    assert torch.equal(product(given_rows[row : row + 1].contiguous())[0], product(given_rows)[row])


def test_what_is_no_number_stays_none_and_nothing_stays_nothing(int8: Callable[[Any], Any]) -> None:
    import torch

    weight, rows, _ = made(1, 3)
    rows[0, 5], rows[1] = torch.nan, 0.0
    said = int8(weight)(rows)

    assert said[0].isnan().all()
    assert (said[1] == 0).all()
    assert said[2].isfinite().all()


def test_joined_matrices_are_one_product_and_the_place_can_be_used_again() -> None:
    import torch

    from synth_consumer.engines.chattts.products import FloatProduct, Joiner

    first, rows, _ = made(1, 4)
    second = made(2, 4)[0]
    place = torch.empty(first.numel() + second.numel())
    join = Joiner(FloatProduct, torch.float32, place)
    product = join([first, second])
    place.fill_(torch.nan)

    torch.testing.assert_close(product(rows), torch.cat([rows @ first.t(), rows @ second.t()], 1))
