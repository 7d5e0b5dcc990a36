"""What was accepted and is no job yet counts in the next one's estimate, once, and not for long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.gateway import backpressure as module
from producers.gateway.announced import Announced
from producers.gateway.backpressure import Backpressure
from schemas.codes import Priority

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def test_each_counts_once_until_it_is_heard() -> None:
    announced = Announced()
    for _ in range(2):
        announced.add("a", INTERACTIVE, 30, now=0.0)
    announced.add("b", BULK, 50, now=0.5)
    assert announced.ahead_of(INTERACTIVE, now=1.0) == (1, 30)
    assert announced.ahead_of(BULK, now=1.0) == (2, 80)
    announced.heard("a")
    announced.heard("a")
    assert announced.ahead_of(BULK, now=1.0) == (1, 50)


def test_what_becomes_no_job_is_forgotten() -> None:
    announced = Announced()
    announced.add("a", INTERACTIVE, 30, now=0.0)
    announced.add("b", INTERACTIVE, 30, now=1.5)
    assert announced.ahead_of(INTERACTIVE, now=2.5) == (1, 30)
    assert announced.ahead_of(INTERACTIVE, now=4.0) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(list(Priority)), st.booleans(), st.floats(0, 3))))
def test_the_sums_are_those_of_what_waits(steps: list[tuple[int, Priority, bool, float]]) -> None:
    announced, expected, now = Announced(), dict[str, tuple[Priority, int, float]](), 0.0
    for number, priority, heard, pause in steps:
        now += pause
        expected = {name: one for name, one in expected.items() if one[2] > now}
        if heard:
            announced.heard(str(number))
            expected.pop(str(number), None)
        else:
            announced.add(str(number), priority, number, now=now)
            expected.setdefault(str(number), (priority, number, now + 2.0))
        assert announced.ahead_of(BULK, now=now) == (len(expected), sum(size for _, size, _ in expected.values()))


def test_a_burst_is_not_told_that_nothing_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = type("Clock", (), {"monotonic": staticmethod(lambda: 100.0)})
    monkeypatch.setattr(module, "time", clock)
    backpressure = Backpressure(600.0)
    estimates = []
    for number in range(50):
        estimates.append(backpressure.start_estimate_s(INTERACTIVE))
        backpressure.announce(f"f{number}", INTERACTIVE, "a text of some length, spoken in seconds")
    assert estimates[0] == 0.0
    assert estimates == sorted(estimates)
    assert estimates[-1] > estimates[25] > 0
    assert backpressure.queued_audio_s > 50
