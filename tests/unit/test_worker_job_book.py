"""Which jobs are in hand, for which records."""

from datetime import UTC, datetime

from aiokafka import ConsumerRecord, TopicPartition

from schemas.codec import Context
from schemas.codes import AudioFormat, Priority
from schemas.jobs import SynthesisJob
from schemas.requests import SpeechSpec
from synth_consumer.worker.job_book import Claim, JobBook, RunningJob


class Slot:
    """A member of the group that remembers what was finished."""

    def __init__(self, *partitions: int) -> None:
        self.held = frozenset(TopicPartition("jobs", number) for number in partitions)
        self.is_assigned = True
        self.finished: list[int] = []
        self.restarted: list[Claim] = []

    def finish(self, record: ConsumerRecord) -> None:
        self.finished.append(record.offset)

    def claim(self, offset: int, partition: int = 0) -> Claim:
        record = ConsumerRecord("jobs", partition, offset, 0, 0, None, b"", None, 0, 0, ())
        return Claim(self, record, lambda _, claim: self.restarted.append(claim))


def _running(job_id: str, *claims: Claim, drive: int = 1) -> RunningJob:
    job = SynthesisJob(
        job_id=job_id,
        fingerprint="ab" * 32,
        spec=SpeechSpec(text="hello", voice="female1", language="en", dialect="english"),
        formats=(AudioFormat.WAV,),
        priority=Priority.BULK,
        request_id="r",
        enqueued_at=datetime.now(UTC),
        drive=drive,
    )
    return RunningJob(job, Context(), Priority.BULK, "jobs", list(claims))


def test_every_record_of_a_job_ends_with_it_also_those_that_come_later() -> None:
    book, one, other = JobBook(), Slot(0), Slot(1)
    running = _running("a", one.claim(1))
    assert not book.attach(running.key, one.claim(1))
    book.begin(running)
    assert book.attach(running.key, other.claim(7, partition=1))
    book.end(running)
    assert (one.finished, other.finished) == ([1], [7])
    assert book.attach(running.key, one.claim(9))
    assert one.finished == [1, 9]


def test_a_job_driven_again_is_spoken_again() -> None:
    book, slot = JobBook(), Slot(0)
    running = _running("a", slot.claim(1))
    book.begin(running)
    book.end(running)
    assert not book.attach(_running("a", slot.claim(2), drive=2).key, slot.claim(2))


def test_a_job_driven_again_while_it_waits_or_is_spoken_is_spoken_once() -> None:
    """A long queue looks like silence to dedup: each further copy would make the queue longer."""
    book, slot = JobBook(), Slot(0)
    running = _running("a", slot.claim(1))
    book.begin(running)
    assert book.attach(_running("a", drive=2).key, slot.claim(2))
    running.in_engine = False
    assert not book.attach(_running("a", drive=3).key, slot.claim(3)), "perhaps driven again because of how it ended"
    book.end(running)
    assert slot.finished == [1, 2]


def test_a_copy_that_waited_behind_a_later_drive_is_finished() -> None:
    book, slot = JobBook(), Slot(0)
    for drive in (2, 1):
        running = _running("a", slot.claim(drive), drive=drive)
        if not book.attach(running.key, running.claims[0]):
            book.begin(running)
            book.end(running)
    assert slot.finished == [2, 1]
    assert not book.attach(_running("a", drive=3).key, slot.claim(3))


def test_a_job_let_go_is_offered_to_every_slot_that_read_it_and_ends_nowhere() -> None:
    book, one, other = JobBook(), Slot(0), Slot(1)
    running = _running("a", one.claim(1))
    book.begin(running)
    book.attach(running.key, other.claim(7, partition=1))
    book.drop(running)
    assert [claim.record.offset for claim in (*one.restarted, *other.restarted)] == [1, 7]
    assert one.finished == other.finished == []
    assert not book.attach(running.key, one.claim(1))


def test_orphans_are_jobs_whose_partition_no_slot_here_holds() -> None:
    book, one, other = JobBook(), Slot(0), Slot(1)
    book.enter(one)
    book.enter(other)
    stays, moved, gone = _running("s", one.claim(1)), _running("m", one.claim(2, 1)), _running("g", one.claim(3, 2))
    for running in (stays, moved, gone):
        book.begin(running)
    assert book.orphans() == [gone]
    other.is_assigned = False
    assert book.orphans() == [], "not while somebody does not know its partitions yet"
    book.leave(other)
    assert book.orphans() == [moved, gone]
    assert book.claimed_by(one, frozenset({TopicPartition("jobs", 2)})) == [gone]


def test_what_ended_is_remembered_within_bounds() -> None:
    book, slot = JobBook(), Slot(0)
    for number in range(5_000):
        running = _running(f"j{number}", slot.claim(number))
        book.begin(running)
        book.end(running)
    assert not book.attach(("j0", 1), slot.claim(0))
    assert book.attach(("j4999", 1), slot.claim(0))
