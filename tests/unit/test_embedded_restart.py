from hypothesis import given
from hypothesis import strategies as st

from infra.embedded.child import GiveUp, Restart, RestartPolicy

POLICY = RestartPolicy()


def test_pauses_grow_and_then_patience_ends():
    deaths, seen = [], []
    for moment in (0.0, 1.0, 2.0, 3.0, 4.0):
        deaths.append(moment)
        seen.append(POLICY.decide(deaths, moment))
    assert seen == [Restart(0.2), Restart(0.4), Restart(0.8), Restart(1.6), GiveUp("died 5 times within 60 s")]


def test_deaths_long_ago_are_forgotten():
    assert POLICY.decide([0.0, 1.0, 2.0, 3.0, 100.0], 100.0) == Restart(0.2)


def test_what_takes_long_to_start_and_never_serves_is_given_up_too():
    assert POLICY.decide([0.0, 100.0], 100.0, unready=4) == Restart(1.6)
    assert POLICY.decide([0.0, 100.0], 100.0, unready=5) == GiveUp("died 5 times before it was ready")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20).map(sorted))
def test_it_gives_up_exactly_when_enough_deaths_are_recent(deaths):
    decision = POLICY.decide(deaths, deaths[-1])
    recent = [moment for moment in deaths if deaths[-1] - moment <= POLICY.window_s]
    if len(recent) >= POLICY.max_deaths:
        assert isinstance(decision, GiveUp)
    else:
        assert isinstance(decision, Restart)
        assert POLICY.first_delay_s <= decision.delay_s <= POLICY.longest_delay_s
