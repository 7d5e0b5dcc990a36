"""How many takes go on when memory runs out."""

import pytest

from synth_consumer.engines.chattts.pressure import LaneCap, out_of_memory


def test_halved_until_the_one_that_is_to_blame_is_alone() -> None:
    cap = LaneCap(16)

    assert [cap.halve(16), cap.halve(8), cap.halve(4), cap.halve(2)] == [8, 4, 2, 1]
    assert cap.now == 1
    assert cap.halve(1) == 0
    assert cap.now == 16, "it was not the number of lanes"


def test_lanes_come_back_after_many_good_takes_and_never_more_than_there_are() -> None:
    cap = LaneCap(4)
    cap.halve(4)
    for _ in range(1_000):
        cap.ended_well()

    assert cap.now == 4


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_errors_that_are_about_memory(error: Exception, is_one: bool) -> None:
    assert out_of_memory(error) is is_one
