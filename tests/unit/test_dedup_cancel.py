"""What a cancellation leads to."""

from schemas import topics
from schemas.codes import AudioFormat, Priority
from schemas.requests import SpeechSpec
from synth_consumer.dedup.decisions import on_cancelled
from synth_consumer.dedup.rows import SynthesisRow, WaiterRow

FP = "a" * 64


class Rows:
    def __init__(self, row, *waiters):
        self._row, self._waiters = row, waiters

    def synthesis(self, _fingerprint):
        return self._row

    def waiter(self, _fingerprint, request_id):
        return next((w for w in self._waiters if w.request_id == request_id), None)

    def waiters(self, _fingerprint):
        return self._waiters


def waiter(name):
    return WaiterRow(
        fingerprint=FP, request_id=name, job_id="job", format=AudioFormat.WAV, accepted_at=1.0, expires_at=99.0
    )


def pending():
    return SynthesisRow(
        fingerprint=FP,
        state="pending",
        job_id="job",
        request_id="one",
        due_at=50.0,
        spec=SpeechSpec(text="a", voice="female1", language="en", dialect="en-us", seed=1),
        formats=(AudioFormat.WAV,),
        priority=Priority.INTERACTIVE,
        deadline_at=99.0,
    )


def told(step):
    return [output.topic for output in step.outputs]


def test_the_last_one_stops_the_job_and_the_synthesis_is_forgotten():
    step = on_cancelled(Rows(pending(), waiter("one")), waiter("one"), now=2.0)
    assert told(step) == [topics.STATUS, topics.COMPLETED, topics.CONTROL]
    assert (step.kind, step.forget) == ("cancelled", (FP, "job"))
    assert [(gone.request_id, gone.end) for gone in step.ends] == [("one", "cancelled")]
    assert step.writes[0].row.state == "failed", "who comes meanwhile begins anew"


def test_others_keep_the_job():
    step = on_cancelled(Rows(pending(), waiter("one"), waiter("two")), waiter("one"), now=2.0)
    assert (told(step), step.forget, step.writes) == ([topics.STATUS, topics.COMPLETED], None, ())


def test_an_end_that_was_written_down_stands():
    rows = Rows(pending(), waiter("one"))
    assert on_cancelled(rows, waiter("one").model_copy(update={"end": "failed"}), now=2.0).kind == "ignored"
    assert (
        on_cancelled(rows, waiter("one").model_copy(update={"end": "cancelled", "remove_at": 9}), now=2.0).kind
        == "ignored"
    )
    again = on_cancelled(rows, waiter("one").model_copy(update={"end": "cancelled"}), now=2.0)
    assert told(again)[:2] == [topics.STATUS, topics.COMPLETED], "a worker was killed before it told this end"
