"""Waiting in a queue is no silence, and a lost job is driven again all the same."""

from schemas import topics
from schemas.codec import decode
from schemas.codes import AudioFormat, ErrorCode, Priority, State
from schemas.completions import ErrorInfo, RequestCompleted
from schemas.outcomes import StageProgress
from schemas.requests import SpeechSpec, SynthesisAdmitted
from synth_consumer.dedup.clock import on_synthesis_due
from synth_consumer.dedup.decisions import on_admitted
from synth_consumer.dedup.orders import Policy
from synth_consumer.dedup.rows import moment
from synth_consumer.dedup.settlement import give_up, on_progress
from tests.property.test_dedup_decisions import Rows

_FINGERPRINT = "a" * 64
_POLICY = Policy(stored_ttl_s=500.0, redrive_after_s=300.0, max_drives=3, progress_fan_out=2)


def _pending(lives_s: float) -> Rows:
    rows = Rows()
    request = SynthesisAdmitted(
        request_id="r1",
        fingerprint=_FINGERPRINT,
        spec=SpeechSpec(text="hello", voice="female1", language="en", dialect="english"),
        format=AudioFormat.WAV,
        priority=Priority.INTERACTIVE,
        accepted_at=moment(0),
        expires_at=moment(lives_s),
    )
    rows.begin(on_admitted(rows, request, None, _POLICY, now=0, ref="0"))
    return rows


def _drives(rows: Rows, until: float) -> list[float]:
    driven = []
    for now in range(int(until)):
        step = on_synthesis_due(rows, rows.syntheses[_FINGERPRINT], _POLICY, now=now)
        if step is not None:
            assert step.kind in {"redriven", "ticked"}, "nobody is given up before its deadline"
            driven += [now] if step.kind == "redriven" else []
            rows.begin(step)
    return driven


def test_a_job_in_a_queue_is_driven_at_fractions_of_its_deadline() -> None:
    assert _drives(_pending(3_600), 3_600) == [1_800, 2_700]


def test_a_worker_that_began_and_fell_silent_is_noticed_soon() -> None:
    rows = _pending(3_600)
    job_id = rows.syntheses[_FINGERPRINT].job_id
    began = StageProgress(fingerprint=_FINGERPRINT, job_id=job_id, state=State.SYNTHESIZING, percent=10)
    rows.begin(on_progress(rows, began, _POLICY, now=1_000))
    assert rows.syntheses[_FINGERPRINT].due_at == 1_300


def test_a_later_drive_is_heard_though_it_begins_at_a_lower_percent() -> None:
    rows = _pending(3_600)
    job_id = rows.syntheses[_FINGERPRINT].job_id
    for percent, at in ((50, 10.0), (10, 2_000.0)):
        event = StageProgress(fingerprint=_FINGERPRINT, job_id=job_id, state=State.SYNTHESIZING, percent=percent)
        rows.begin(on_progress(rows, event, _POLICY, now=at))
        row = rows.syntheses[_FINGERPRINT]
        assert (row.heard, row.percent) == (True, 50)
        step = on_synthesis_due(rows, row, _POLICY, now=row.due_at)
        assert step is not None
        rows.begin(step)


def test_past_its_time_a_request_is_expired_whatever_ends_its_synthesis() -> None:
    rows = _pending(100)
    error = ErrorInfo(code=ErrorCode.DEADLINE_EXCEEDED, message="late", attempts=1)
    step = give_up(rows.syntheses[_FINGERPRINT], tuple(rows.waiters(_FINGERPRINT)), error, now=100)
    ends = [decode(RequestCompleted, out.message.value) for out in step.outputs if out.topic == topics.COMPLETED]
    assert [end.type for end in ends] == ["speech.expired"]
