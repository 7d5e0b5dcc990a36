"""Killed anywhere at the door and delivered again, a request has one end or is admitted, and never both."""

from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from tests.unit.test_dedup_admission import Rows, _admission, _ends, _record

_VALUES = (
    b'{"request_id": "r1", "text": "Hi"}',
    b'{"request_id": "r1", "text": "Hi", "voice": "nobody"}',
    b'{"request_id": "r1", "text": ""}',
)


@given(
    value=st.sampled_from(_VALUES),
    kills=st.lists(st.sampled_from(("nothing done", "row written", "all told")), max_size=4),
)
def test_whatever_a_kill_left_the_next_delivery_completes(value: bytes, kills: list[str]) -> None:
    rows, record = Rows(), _record(value)
    ends: list[str] = []
    admitted = 0
    for number, how_far in enumerate([*kills, "all told"]):
        step = _admission(rows).on_request(record, now=float(number))
        if how_far != "nothing done":
            rows.write(step)
        if how_far == "all told":
            ends += _ends(step)
            admitted += sum(output.topic == topics.ADMITTED for output in step.outputs)
    assert set(ends) <= {"failed"}
    assert bool(ends) != bool(admitted), "one of the two, however often it was killed"
