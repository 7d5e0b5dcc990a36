"""A repeat after a 2xx is put down to a crash only when that crash explains it."""

import pytest
from webhook_causes import Arrival, Cause, Events, after_noted, causes, repeats


def arrivals(*moments: tuple[float, int]) -> list[Arrival]:
    return [Arrival(at, "msg_1", status, "r-1") for at, status in moments]


def events(
    *,
    notifier: tuple[float, ...] = (),
    receiver: tuple[float, ...] = (),
    noted: float = 20.0,
    broke: float | None = None,
) -> Events:
    return Events(notifier, receiver, {"r-1": noted}, {"r-1": () if broke is None else (broke,)})


def test_only_what_comes_after_a_2xx_is_a_repeat() -> None:
    assert not list(repeats(arrivals((1.0, 500), (2.0, 0), (3.0, 204))))
    found = list(repeats(arrivals((10.0, 204), (14.0, 500), (16.0, 204), (18.0, 204))))
    assert [(repeat.accepted_at, repeat.again_at) for repeat in found] == [(10.0, 14.0), (10.0, 16.0), (16.0, 18.0)]


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        (events(notifier=(10.01,)), Cause.NOTIFIER),
        (events(notifier=(9.9,)), Cause.NOTIFIER),  # read by the receiver after its sender was dead
        (events(notifier=(10.3,), noted=10.2), Cause.NONE),  # it was noted before
        (events(notifier=(16.0,)), Cause.NONE),  # a notifier that lives notes sooner than that
        (events(notifier=(8.0,)), Cause.NONE),
        (events(receiver=(10.01,), broke=10.02), Cause.RECEIVER),
        (events(receiver=(10.01,)), Cause.NONE),  # no connection broke, so the answer arrived
        (events(receiver=(9.9,), broke=10.02), Cause.NONE),
        (events(receiver=(12.0,), broke=12.1), Cause.NONE),
        (events(), Cause.NONE),
    ],
)
def test_a_cause_lies_between_the_2xx_and_its_note(happened: Events, expected: Cause) -> None:
    assert causes(arrivals((10.0, 204), (17.0, 204)), happened) == {expected: 1}


def test_a_crash_after_the_repeat_explains_nothing() -> None:
    assert causes(arrivals((10.0, 204), (11.0, 204)), events(notifier=(12.0,))) == {Cause.NONE: 1}


def test_what_comes_after_the_note_is_counted() -> None:
    came = arrivals((10.0, 204), (12.0, 204))
    assert after_noted(came, {"r-1": 11.0}) == 1
    assert after_noted(came, {"r-1": 13.0}) == after_noted(came, {}) == 0
