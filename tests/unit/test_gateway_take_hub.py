import pytest

from producers.gateway.take_hub import TakeHub
from schemas.audio import AudioChunk

FP, OTHER = "a" * 64, "b" * 64


def chunk(index, pcm=b"\1\0" * 10, take="one", fingerprint=FP):
    return AudioChunk(fingerprint, "job", take, index, 24_000, pcm)


@pytest.fixture
def hub():
    return TakeHub(max_bytes=100, max_take_bytes=80)


def test_a_take_is_kept_from_its_first_chunk_and_repeats_change_nothing(hub):
    for index in (0, 1, 1, 0):
        hub.chunk(chunk(index))
    take = hub.take(FP)
    assert (take.chunks, len(take.pcm)) == (2, 40)
    assert take.from_sample(15, 1_000) == b"\1\0" * 5
    assert take.from_sample(99, 1_000) == b""
    assert len(take.from_sample(0, 6)) == 6


def test_a_take_whose_beginning_was_missed_is_not_offered(hub):
    hub.chunk(chunk(1))
    assert hub.take(FP) is None


def test_a_new_take_replaces_one_that_did_not_end_and_no_good_one(hub):
    hub.chunk(chunk(0))
    hub.chunk(chunk(0, b"\2\0", "two"))
    assert hub.take(FP).take_id == "two"
    hub.finished(FP, "two", 1)
    hub.chunk(chunk(0, take="three"))
    assert (hub.take(FP).take_id, hub.take(FP).ended) == ("two", True)


def test_an_end_with_other_counts_is_no_end(hub):
    hub.chunk(chunk(0))
    hub.finished(FP, "one", 2)
    assert not hub.take(FP).ended


def test_what_failed_is_thrown_away_even_when_it_seemed_good(hub):
    hub.chunk(chunk(0))
    hub.finished(FP, "one", 1)
    hub.abandoned(FP, "one")
    assert hub.take(FP) is not None, "the word about a take that is complete comes too late"
    hub.forget(FP)
    assert (hub.take(FP), hub.size) == (None, 0)


def test_nothing_grows_without_bound(hub):
    hub.chunk(chunk(0))
    first = hub.take(FP)
    for index in range(4):
        hub.chunk(chunk(index, b"\0" * 20, "x", OTHER))
    assert (hub.size, first.gone) == (100, False)
    hub.chunk(chunk(4, b"\0" * 20, "x", OTHER))
    assert hub.take(OTHER) is None, "a take longer than one may be is not kept"
    assert hub.size == 20
    for index in range(2):
        hub.chunk(chunk(index, b"\0" * 30, "y", "c" * 64))
    hub.chunk(chunk(0, b"\0" * 30, "z", "d" * 64))
    assert (hub.take(FP), first.gone) == (None, True), "the one heard of longest ago goes first"


def test_ears_are_woken_and_leave_nothing_behind(hub):
    with hub.ear(FP) as one, hub.ear(FP) as two:
        hub.chunk(chunk(0))
        assert one.is_set()
        assert two.is_set()
        one.clear()
        hub.forget(FP)
        assert one.is_set()
    assert not hub._ears
