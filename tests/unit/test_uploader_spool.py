"""The spool stays within its bounds and gives back what was put in."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uploader.spool
from uploader.settings import SpoolSettings
from uploader.spool import Spool, SpoolError


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    made: list[Spool] = []

    def make(**bounds: object) -> Spool:
        made.append(Spool(SpoolSettings.model_validate({"folder": str(tmp_path), **bounds})))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_large_take_moves_to_disk_alone(spool: Callable[..., Spool], tmp_path: Path) -> None:
    kept = spool(take_memory_bytes=10)
    for index in range(4):
        kept.add("large", index, bytes([index] * 6))
    kept.add("small", 0, b"abcd")

    assert (kept.memory_bytes, kept.disk_bytes) == (4, 24)
    assert kept.samples("large").tobytes() == b"".join(bytes([index] * 6) for index in range(4))
    assert list(tmp_path.iterdir()) == []  # unlinked: nothing is left behind by a killed process


def test_the_largest_goes_when_all_together_are_too_many(spool: Callable[..., Spool]) -> None:
    kept = spool(memory_bytes=20)
    kept.add("large", 0, b"x" * 14)
    kept.add("small", 0, b"y" * 8)

    assert (kept.memory_bytes, kept.disk_bytes) == (8, 14)


def test_order_of_arrival_does_not_matter_on_disk(spool: Callable[..., Spool]) -> None:
    kept = spool(take_memory_bytes=0)
    for index in (2, 0, 1, 0):
        kept.add("take", index, bytes([index, index]))
    assert kept.samples("take").tobytes() == b"\0\0\1\1\2\2"


def test_full_only_by_disk_and_not_after_letting_go(spool: Callable[..., Spool]) -> None:
    kept = spool(take_memory_bytes=0, disk_bytes=10, take_bytes=10)
    kept.add("take", 0, b"123456")
    samples = kept.samples("take")
    assert not kept.full
    kept.add("other", 0, b"abcdef")
    assert kept.full
    kept.discard("take")
    kept.discard("never seen")
    assert not kept.full
    assert samples.tobytes() == b"123456"  # what was handed out stays readable


def test_a_take_beyond_all_measure_is_refused_and_forgotten(spool: Callable[..., Spool]) -> None:
    kept = spool(take_bytes=10)
    kept.add("take", 0, b"12345678")
    with pytest.raises(SpoolError, match="larger than 10 bytes"):
        kept.add("take", 1, b"1234")
    assert kept.memory_bytes == 0


def test_a_disk_that_cannot_be_written_is_told(spool: Callable[..., Spool], tmp_path: Path) -> None:
    kept = spool(folder=str(tmp_path / "absent"), take_memory_bytes=0)
    with pytest.raises(SpoolError, match="No such file"):
        kept.add("take", 0, b"12")
    assert (kept.memory_bytes, kept.disk_bytes) == (0, 0)


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Bounds the size that files can grow to, in bytes: a write beyond is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_of_the_take_that_met_it(
    spool: Callable[..., Spool], small_disk: Callable[[int], None]
) -> None:
    kept = spool(memory_bytes=400_000)
    for index in range(8):
        kept.add("big", index, bytes([index]) * 48_000)
    small_disk(200_000)
    with pytest.raises(SpoolError, match="cannot write: File too large") as caught:
        kept.add("small", 0, b"y" * 20_000)
    small_disk(10_000_000)

    assert caught.value.take_id == "big"
    assert (kept.memory_bytes, kept.disk_bytes) == (20_000, 0)
    assert kept.samples("small").tobytes() == b"y" * 20_000
    assert len(kept.samples("big")) == 0
    kept.discard("small")
    assert (kept.memory_bytes, kept.disk_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(1, 40), st.booleans()), max_size=30))
def test_whatever_the_disk_does_takes_are_whole_or_gone(
    chunks: list[tuple[str, int, int, bool]],
) -> None:
    kept = Spool(SpoolSettings(take_memory_bytes=60, memory_bytes=90))
    expected: dict[str, dict[int, bytes]] = {}
    real = uploader.spool._append
    for take_id, index, samples, fails in chunks:
        pcm = bytes([index, samples]) * samples

        def append(file: BinaryIO, content: bytes, fails: bool = fails) -> int:
            if fails:
                file.seek(0, 2)
                file.write(content[:1])
                raise OSError(28, "No space left on device")
            return real(file, content)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uploader.spool, "_append", append)
            expected.setdefault(take_id, {}).setdefault(index, pcm)
            try:
                kept.add(take_id, index, pcm)
            except SpoolError as error:
                expected.pop(error.take_id)
        for one, parts in expected.items():
            assert kept.samples(one).tobytes() == b"".join(parts[each] for each in sorted(parts))
        held = sum(len(pcm) for parts in expected.values() for pcm in parts.values())
        assert kept.memory_bytes + kept.disk_bytes == held
        assert min(kept.memory_bytes, kept.disk_bytes) >= 0
    kept.close()


def test_an_unknown_take_is_empty(spool: Callable[..., Spool]) -> None:
    assert len(spool().samples("never seen")) == 0
    assert spool().samples("never seen").dtype == np.int16
