"""How long a fetch may wait: short at rest, longer only while records are left behind."""

from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.patience import LONGEST_MS, Patience


def test_at_rest_every_wait_is_the_short_one() -> None:
    patience = Patience.at_rest(20)
    for _ in range(3):
        patience = patience.after(left_behind=False, took_ms=20)
    assert patience.wait_ms == 20


def test_what_was_enough_is_tried_first_the_next_time() -> None:
    patience = Patience.at_rest(20)
    for _ in range(4):
        patience = patience.after(left_behind=True, took_ms=20)
    assert patience.wait_ms == 320
    patience = patience.after(left_behind=False, took_ms=140)
    assert patience.wait_ms == 20
    assert patience.after(left_behind=True, took_ms=20).wait_ms == 280


def test_a_wait_of_which_the_broker_slept_half_is_halved_each_time() -> None:
    """One long stall must not make every later record that is just being written late by seconds."""
    patience = Patience(base_ms=20, wait_ms=20, enough_ms=LONGEST_MS)
    waits = []
    for _ in range(9):
        patience = patience.after(left_behind=True, took_ms=20)
        waits.append(patience.wait_ms)
        patience = patience.after(left_behind=False, took_ms=patience.wait_ms // 2 + 5)
    assert waits == [8_000, 4_000, 2_000, 1_000, 500, 250, 125, 62, 40]


def test_a_long_wait_that_was_not_needed_is_not_tried_again() -> None:
    patience = Patience(base_ms=20, wait_ms=LONGEST_MS, enough_ms=LONGEST_MS)
    patience = patience.after(left_behind=False, took_ms=15)
    assert patience.after(left_behind=True, took_ms=20).wait_ms == 40


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 200))
def test_a_record_that_cannot_be_read_yet_costs_little_however_often(unreadable: list[bool], finding_ms: int) -> None:
    """Each such record is counted once too early; from then on finding it takes what it takes."""
    patience = Patience.at_rest(20)
    for early in unreadable:
        if early:
            patience = patience.after(left_behind=True, took_ms=20)
        patience = patience.after(left_behind=False, took_ms=min(patience.wait_ms, finding_ms))
        assert patience.wait_ms == 20
    assert patience.enough_ms <= max(40, 2 * finding_ms)


@given(base=st.integers(1, 20_000), needed=st.integers(1, LONGEST_MS))
def test_whatever_the_broker_needs_is_reached(base: int, needed: int) -> None:
    patience, spent = Patience.at_rest(base), 0
    while patience.wait_ms < needed:
        spent += patience.wait_ms
        patience = patience.after(left_behind=True, took_ms=patience.wait_ms)
    assert spent <= 2 * needed
    assert patience.wait_ms <= max(LONGEST_MS, base)
