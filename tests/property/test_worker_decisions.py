"""The worker's pure parts: chunks, turns, retries, progress."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import ErrorCode, Priority
from schemas.requests import MAX_SEED
from synth_consumer.engines.protocol import SEEDS_PER_TAKE
from synth_consumer.worker.chunking import ChunkCutter
from synth_consumer.worker.progress import END_PERCENT, ProgressMeter
from synth_consumer.worker.retry import (
    MAX_DEATHS,
    MAX_REPEATS,
    Backoff,
    GiveUp,
    SpeakAgain,
    after_failure,
    before_take,
    shifted,
)
from synth_consumer.worker.turns import Turns

_RATE = 100  # Hz: small numbers, same rules


@given(st.lists(st.integers(0, 400)), st.floats(0.05, 2), st.floats(0.05, 2))
def test_chunks_joined_are_what_went_in(sizes: list[int], first_s: float, chunk_s: float) -> None:
    fed = [bytes((n + k) % 256 for k in range(2 * size)) for n, size in enumerate(sizes)]
    cutter = ChunkCutter(_RATE, first_s=first_s, chunk_s=chunk_s)
    chunks = [chunk for pcm in fed for chunk in cutter.feed(pcm)]
    rest = cutter.rest()
    assert b"".join(chunks) + rest == b"".join(fed)
    assert len(rest) % 2 == 0
    wanted = [2 * max(1, round(_RATE * s)) for s in (first_s, chunk_s)]
    assert [len(chunk) for chunk in chunks[:1]] == wanted[: len(chunks[:1])]
    assert all(len(chunk) == wanted[1] for chunk in chunks[1:])
    assert len(rest) < wanted[bool(chunks)]
    assert cutter.rest() == b""


@given(
    st.integers(1, 16),
    st.integers(1, 8),
    st.data(),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=200),
)
def test_turns_fill_lanes_and_starve_nobody(
    lanes: int, run: int, data: st.DataObject, moments: list[tuple[bool, bool, bool]]
) -> None:
    """Each moment: whether interactive waits, whether bulk waits, whether a lane is freed first."""
    reserved = data.draw(st.integers(0, lanes - 1))
    turns = Turns(lanes, run=run, reserved=reserved)
    held: list[Priority] = []
    passed_over = 0  # interactive jobs taken while bulk waited and could have had the lane
    for interactive_waits, bulk_waits, freed in moments:
        if freed and held:
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        bulk_held = held.count(Priority.BULK)
        order = turns.order(busy=len(held), busy_bulk=bulk_held)
        assert (len(held) < lanes) == bool(order), "a free lane always asks"
        waiting = {Priority.INTERACTIVE: interactive_waits, Priority.BULK: bulk_waits}
        taken = next((queue for queue in order if waiting[queue]), None)
        if taken is None:
            assert not order or not interactive_waits
            continue
        turns.took(taken)
        held.append(taken)
        assert held.count(Priority.BULK) <= max(1, lanes - reserved)
        if taken is Priority.BULK:
            passed_over = 0
        elif bulk_waits and Priority.BULK in order:
            passed_over += 1
            assert passed_over <= run, "bulk has at least one start in run + 1"
    assert len(held) <= lanes


def test_interactive_goes_first_and_every_fourth_start_is_bulk() -> None:
    turns = Turns(lanes=1)
    taken = []
    for _ in range(8):
        taken.append(turns.order(busy=0, busy_bulk=0)[0])
        turns.took(taken[-1])
    assert [queue is Priority.BULK for queue in taken] == [False, False, False, True] * 2


@given(st.sampled_from(ErrorCode), st.integers(0, 10))
def test_a_job_is_never_repeated_for_ever(code: ErrorCode, start: int) -> None:
    repeats = start
    while isinstance(after_failure(code, "why", repeats=repeats), SpeakAgain):
        repeats += 1
        assert repeats <= start + 2
    end = after_failure(code, "why", repeats=repeats)
    assert isinstance(end, GiveUp)
    assert end.code is code


def test_a_further_take_repeats_no_seed_that_failed() -> None:
    tried = set(range(SEEDS_PER_TAKE))
    seed = 0
    for repeats in range(MAX_REPEATS):
        following = after_failure(ErrorCode.BAD_AUDIO, "why", repeats=repeats)
        assert isinstance(following, SpeakAgain)
        seed = shifted(seed, following.seed_shift)
        seeds = set(range(seed, seed + SEEDS_PER_TAKE))
        assert not tried & seeds
        tried |= seeds


@given(st.integers(0, 10), st.sampled_from([None, ErrorCode.ENGINE_CRASHED, ErrorCode.ENGINE_TIMEOUT]))
def test_deaths_make_a_suspect_and_then_an_end(deaths: int, last: ErrorCode | None) -> None:
    decision = before_take(deaths, last)
    if deaths < MAX_DEATHS:
        assert decision == SpeakAgain(alone=deaths > 0)
    else:
        assert isinstance(decision, GiveUp)
        assert decision.dead_letter
        assert decision.code is (last or ErrorCode.ENGINE_CRASHED)


@given(st.integers(0, MAX_SEED), st.integers(0, 5))
def test_seeds_stay_readable(seed: int, shift: int) -> None:
    assert 0 <= shifted(seed, shift) <= MAX_SEED


@given(st.integers(0, 10_000), st.floats(0.01, 60))
def test_delays_grow_and_are_bounded(failures: int, first_s: float) -> None:
    backoff = Backoff(first_s=first_s)
    assert backoff.delay_s(0) == 0
    assert backoff.delay_s(failures) <= backoff.delay_s(failures + 1) <= 30


@given(st.lists(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(0, 5)), max_size=30), max_size=4))
def test_progress_never_falls_and_is_seldom(takes: list[list[tuple[float, float]]]) -> None:
    meter = ProgressMeter()
    now = 0.0
    said: list[tuple[int, float]] = []
    for take in takes:
        if (percent := meter.begin(now)) is not None:
            said.append((percent, now))
        for share, passed in take:
            now += passed
            if (percent := meter.moved(share, now)) is not None:
                said.append((percent, now))
    assert len(said) <= 11
    for (percent, at), (following, later) in pairwise(said):
        assert percent < following <= END_PERCENT
        assert later - at >= 1.0
