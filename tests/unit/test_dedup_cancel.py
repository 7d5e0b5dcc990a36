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
    marked = waiter("one").model_copy(update={"end": "cancelled"})
    assert (step.kind, step.forget, step.ends) == ("cancelled", (FP, "job"), (marked,))
    assert step.writes[0].row.state == "failed", "who comes meanwhile begins anew"


def test_others_keep_the_job():
    step = on_cancelled(Rows(pending(), waiter("one"), waiter("two")), waiter("one"), now=2.0)
    assert (told(step), step.forget, step.writes) == ([topics.STATUS, topics.COMPLETED], None, ())


def test_a_crash_while_it_is_told_changes_nothing():
    marked = waiter("one").model_copy(update={"end": "cancelled"})
    failed = pending().model_copy(update={"state": "failed", "spec": None})
    step = on_cancelled(Rows(failed), marked, now=2.0)
    assert (told(step), step.forget) == ([topics.STATUS, topics.COMPLETED, topics.CONTROL], (FP, "job"))


def test_what_has_ended_is_not_cancelled():
    for update in ({"end": "expired"}, {"end": "cancelled", "remove_at": 9.0}):
        assert on_cancelled(Rows(pending()), waiter("one").model_copy(update=update), now=2.0).kind == "ignored"
