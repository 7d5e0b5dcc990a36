"""How long a fetch may wait: short at rest, longer only while records are left behind."""

from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.patience import LONGEST_MS, Patience


def test_at_rest_every_wait_is_the_short_one() -> None:
    patience = Patience.at_rest(20)
    for _ in range(3):
        patience = patience.after(left_behind=False)
    assert patience.wait_ms == 20


def test_what_was_enough_is_tried_first_the_next_time() -> None:
    patience = Patience.at_rest(20)
    for _ in range(4):
        patience = patience.after(left_behind=True)
    assert patience.wait_ms == 320
    patience = patience.after(left_behind=False)
    assert patience.wait_ms == 20
    assert patience.after(left_behind=True).wait_ms == 320


@given(base=st.integers(1, 20_000), needed=st.integers(1, LONGEST_MS))
def test_whatever_the_broker_needs_is_reached(base: int, needed: int) -> None:
    patience, spent = Patience.at_rest(base), 0
    while patience.wait_ms < needed:
        spent += patience.wait_ms
        patience = patience.after(left_behind=True)
    assert spent <= 2 * needed
    assert patience.wait_ms <= max(LONGEST_MS, base)
