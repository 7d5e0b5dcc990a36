"""Records that come twice are attempted once, and the one furthest on lives."""

import pytest

from notifier.ledger import Ledger, Settled, Verdict


def test_a_settled_attempt_is_not_begun_again_but_the_next_is() -> None:
    ledger = Ledger()
    assert ledger.begin("d", 1) is Verdict.ATTEMPT
    ledger.settle(Settled("d", 1, ended=False))
    assert ledger.begin("d", 1) is Verdict.NOTHING
    assert ledger.begin("d", 2) is Verdict.ATTEMPT


def test_an_ended_delivery_has_no_further_attempt() -> None:
    ledger = Ledger()
    ledger.recall([Settled("d", 3, ended=True), Settled("d", 2, ended=False)])
    assert {ledger.begin("d", attempt) for attempt in range(1, 6)} == {Verdict.NOTHING}
    assert ledger.begin("another", 1) is Verdict.ATTEMPT


@pytest.mark.parametrize(("other", "verdict"), [(1, Verdict.NOTHING), (2, Verdict.LATER), (3, Verdict.LATER)])
def test_two_copies_are_not_in_hand_at_once(other: int, verdict: Verdict) -> None:
    ledger = Ledger()
    ledger.begin("d", 2)
    assert ledger.begin("d", other) is verdict


def test_a_copy_behind_what_is_settled_goes() -> None:
    """Attempt 2 was settled before the crash, the event of attempt 1 was not: 1 comes again, 3 waits on the bus."""
    ledger = Ledger()
    ledger.recall([Settled("d", 2, ended=False)])
    assert ledger.begin("d", 1) is Verdict.NOTHING
    assert ledger.begin("d", 3) is Verdict.ATTEMPT


def test_releasing_one_copy_leaves_the_other_in_hand() -> None:
    ledger = Ledger()
    ledger.begin("d", 1)
    ledger.release("d", 2)
    assert ledger.begin("d", 1) is Verdict.LATER
    ledger.release("d", 1)
    assert ledger.begin("d", 1) is Verdict.ATTEMPT


def test_it_remembers_the_newest() -> None:
    ledger = Ledger(remembered=2)
    ledger.recall(Settled(name, 1, ended=True) for name in "abc")
    assert [ledger.begin(name, 1) for name in "abc"] == [Verdict.ATTEMPT, Verdict.NOTHING, Verdict.NOTHING]
