"""What a message at the door leads to, when it comes again, lies wrong, or is too large."""

from infra.speech import Speech
from infra.voices import load_catalogue
from schemas import topics
from schemas.codec import decode, encode
from schemas.codes import ErrorCode, State
from schemas.completions import RequestCompleted, RequestStatus
from schemas.dead_letters import read_dead_letter
from schemas.requests import CancelRequested
from synth_consumer.dedup.admission import Admission, track
from synth_consumer.dedup.records import Record
from synth_consumer.dedup.rows import RequestRow
from synth_consumer.dedup.steps import Step
from synth_consumer.dedup.tables import partition_of

_PARTITIONS = 4


class Rows:
    def __init__(self) -> None:
        self.rows: dict[str, RequestRow] = {}

    def request(self, request_id: str) -> RequestRow | None:
        return self.rows.get(request_id)

    def write(self, step: Step) -> None:
        for write in step.writes:
            assert isinstance(write.row, RequestRow)
            self.rows[write.key.decode()] = RequestRow.from_bytes(write.row.to_bytes())


def _admission(rows: Rows) -> Admission:
    return Admission(rows, Speech(load_catalogue(), "tone", "1"), _PARTITIONS, 100.0, 262_144)


def _record(value: bytes, *, key: bytes | None = b"r1", **more: object) -> Record:
    partition = partition_of(key or b"", _PARTITIONS)
    return Record(topics.REQUESTS, partition, 7, key, value, **more)  # type: ignore[arg-type]


def _ends(step: Step) -> list[str]:
    return [
        decode(RequestCompleted, out.message.value).data.status for out in step.outputs if out.topic == topics.COMPLETED
    ]


def test_a_refused_request_is_told_its_end_again_when_its_message_comes_again() -> None:
    rows = Rows()
    record = _record(b'{"request_id": "r1", "text": "Hi", "voice": "nobody"}')
    first = _admission(rows).on_request(record, now=1.0)
    rows.write(first)  # killed here: the row is in the changelog, nothing was told
    again = _admission(rows).on_request(record, now=2.0)
    assert _ends(first) == _ends(again) == ["failed"]
    for output in again.outputs:
        if output.topic == topics.STATUS:
            rows.write(track(rows, decode(RequestStatus, output.message.value)))
    assert rows.rows["r1"].state is State.FAILED
    # Another message under the same id touches neither request nor end.
    other = Record(record.topic, record.partition, 8, record.key, record.value)
    assert _ends(_admission(rows).on_request(other, now=3.0)) == []


def test_a_redelivered_request_does_not_fall_back_to_accepted() -> None:
    rows = Rows()
    record = _record(b'{"request_id": "r1", "text": "Hi"}')
    rows.write(_admission(rows).on_request(record, now=1.0))
    rows.rows["r1"] = rows.rows["r1"].model_copy(update={"percent": 5, "state": State.QUEUED})
    again = _admission(rows).on_request(record, now=2.0)
    assert [output.topic for output in again.outputs] == [topics.ADMITTED]


def test_a_given_id_is_the_same_on_every_delivery_and_another_in_every_installation() -> None:
    def given(timestamp_ms: int, value: bytes = b'{"text": "Hi"}') -> bytes | None:
        record = _record(value, key=None, timestamp_ms=timestamp_ms)
        [moved] = _admission(Rows()).on_request(record, now=1.0).outputs
        return moved.message.key

    assert given(1) == given(1)
    assert len({given(1), given(2), given(1, b'{"text": "Ho"}')}) == 3


def test_a_cancellation_goes_to_where_its_id_belongs_once() -> None:
    message = encode(CancelRequested(request_id="r1"), source="test")
    lost = Record(topics.REQUESTS, (partition_of(b"r1", _PARTITIONS) + 1) % _PARTITIONS, 0, None, message.value)
    [moved] = _admission(Rows()).on_cancel(lost, now=1.0).outputs
    assert (moved.topic, moved.message.key) == (topics.REQUESTS, b"r1")
    assert moved.partition == partition_of(b"r1", _PARTITIONS)
    there = _record(moved.message.value, headers=moved.message.headers)
    assert _admission(Rows()).on_cancel(there, now=1.0).kind == "ignored"


def test_an_unreadable_cancellation_is_an_invalid_request() -> None:
    [dead] = _admission(Rows()).on_cancel(_record(b"{broken"), now=1.0).outputs
    assert read_dead_letter(dead.message.headers).code is ErrorCode.INVALID_REQUEST


def test_headers_too_large_to_move_end_the_request() -> None:
    rows = Rows()
    record = _record(b'{"request_id": "r1", "text": "Hi"}', key=b"", headers=(("x", b"x" * 2_000_000),))
    step = _admission(rows).on_request(record, now=1.0)
    assert step.kind == "refused"
    letter, *rest = step.outputs
    assert read_dead_letter(letter.message.headers).code is ErrorCode.INVALID_REQUEST
    [verdict] = rest  # tells the owner of the id
    assert sum(len(value) for _, value in verdict.message.headers) < 10_000
    owner = _admission(rows).on_request(_record(verdict.message.value or b"", headers=verdict.message.headers), now=2.0)
    assert _ends(owner) == ["failed"]
