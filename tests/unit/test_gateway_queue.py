"""What is queued, how fast it is spoken, and when a new request is begun with."""

import pytest

from producers.gateway.backpressure import Backpressure
from producers.gateway.job_queue import JobQueue, start_after_s
from producers.gateway.speedometer import Speedometer
from schemas.audio import AudioChunk
from schemas.base import utc_now
from schemas.codes import AudioFormat, Priority
from schemas.jobs import SynthesisJob
from schemas.requests import SpeechSpec

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def queue_of(*jobs, s_per_byte=0.1):
    queue = JobQueue(s_per_byte=s_per_byte)
    for number, (priority, size) in enumerate(jobs):
        queue.ordered(f"f{number}", priority, size)
    return queue


def start(queue, priority=INTERACTIVE, lanes=2, speed=1.0, unknown=()):
    return queue.start_after_s(priority, lanes=lanes, speed=speed, unknown_s=list(unknown))


@pytest.mark.parametrize(
    ("rests", "ahead", "free", "expected"),
    [
        ([], [], 2, 0.0),
        ([5.0], [], 1, 0.0),  # a lane is free
        ([5.0], [3.0], 1, 3.0),  # the free lane is the other's, and free again before the busy one
        ([5.0, 2.0], [], 0, 2.0),
        ([5.0, 2.0], [1.0, 1.0], 0, 4.0),
        ([], [], 0, 0.0),
    ],
)
def test_the_next_start_is_when_a_lane_is_left_over(rests, ahead, free, expected):
    assert start_after_s(rests, ahead, free=free, speed_of_lane=1.0) == expected
    assert start_after_s(rests, ahead, free=free, speed_of_lane=2.0) == expected / 2


def test_a_request_starts_at_once_while_lanes_are_free():
    queue = queue_of((INTERACTIVE, 100))
    queue.heard("f0", 1, first=True)
    assert (start(queue, lanes=2), start(queue, BULK, lanes=2)) == (0, 0)
    assert start(queue, lanes=1) == pytest.approx(9), "10 s by its text, of which 1 s was heard"


def test_interactive_does_not_wait_for_bulk_but_for_its_share():
    queue = queue_of(*[(BULK, 100)] * 20, (INTERACTIVE, 50))
    assert start(queue, lanes=1) == pytest.approx(5)
    assert start(queue, BULK, lanes=1) == pytest.approx(205)
    for number in range(2):
        queue.ordered(f"more{number}", INTERACTIVE, 50)
    assert start(queue, lanes=1) == pytest.approx(25), "three interactive ones, and the bulk one that is due"


def test_a_quarter_of_the_lanes_is_not_for_bulk():
    queue = queue_of(*[(BULK, 100)] * 3)
    for number in range(3):
        queue.heard(f"f{number}", 1, first=True)
    assert start(queue, lanes=4) == 0
    assert start(queue, BULK, lanes=4) > 0


def test_texts_weigh_by_their_length():
    short, long = queue_of(*[(INTERACTIVE, 10)] * 4), queue_of(*[(INTERACTIVE, 1_000)] * 4)
    assert start(long) == pytest.approx(100 * start(short))


def test_the_pace_is_learned_and_jobs_come_and_go():
    queue = queue_of((INTERACTIVE, 100), (BULK, 100))
    queue.heard("f0", 3, first=True)
    queue.heard("f0", 3, first=False)
    assert queue.audio_s == pytest.approx(4 + 10)
    queue.heard("f0", 3, first=True)  # another take of it
    assert queue.audio_s == pytest.approx(7 + 10)
    queue.finished("f0", 20)
    assert queue.s_per_byte == pytest.approx(0.11)
    assert (len(queue), queue.idle, queue.pressed) == (2, False, True)
    queue.settled("f0")
    queue.settled("f1")
    queue.settled("unknown")
    assert (len(queue), queue.audio_s, queue.idle) == (0, 0, True)


def test_a_long_queue_costs_as_much_as_a_short_one():
    queue = queue_of(*[(INTERACTIVE, 100)] * 10_000)
    assert start(queue, lanes=8, speed=8) == pytest.approx(10_000 * 10 / 8, rel=0.05)


def test_work_counts_and_idle_time_does_not():
    meter = Speedometer()
    assert meter.speed == 1.0
    for _ in range(20):
        meter.heard(1, 0.5, pressed=False)
    assert meter.speed == pytest.approx(2)
    for _ in range(20):
        meter.heard(1, 0.1, pressed=True)
    assert meter.speed == pytest.approx(10), "what all lanes make together, once they were all needed"


def job(fingerprint, text="x" * 100, priority=INTERACTIVE):
    spec = SpeechSpec(text=text, voice="female1", language="en", dialect="en-us", seed=1)
    return SynthesisJob(
        job_id="job",
        fingerprint=fingerprint,
        spec=spec,
        formats=(AudioFormat.WAV,),
        priority=priority,
        request_id="r",
        enqueued_at=utc_now(),
    )


def test_idle_gaps_do_not_make_it_slow_and_slow_engines_are_not_idle(monkeypatch):
    now = 0.0
    monkeypatch.setattr("producers.gateway.backpressure.time.monotonic", lambda: now)
    pressure = Backpressure(100)
    for number in range(5):
        now += 1_000  # nobody asks
        name = f"{number:064x}"
        pressure.on_job(job(name))
        for index in range(2):
            now += 4  # a slow engine: a second of audio takes four
            pressure.on_chunk(AudioChunk(name, "j", "t", index, 24_000, b"\0" * 48_000))
        pressure.on_settled(name)
    assert pressure.speed == pytest.approx(0.25)
    assert pressure.start_estimate_s(INTERACTIVE) == 0.0
    pressure.on_job(job("a" * 64))
    assert pressure.start_estimate_s(INTERACTIVE) == pytest.approx(7 / 0.25, rel=0.1), "the one lane is taken"


def test_what_only_dedup_knows_of_is_believed_when_it_says_so_again():
    pressure = Backpressure(100)
    pressure.in_flight(0)
    pressure.in_flight(4)
    assert pressure.start_estimate_s(INTERACTIVE) == 0, "a moment's difference between dedup and the bus"
    pressure.in_flight(4)
    pressure.in_flight(4)
    assert pressure.start_estimate_s(INTERACTIVE) == pytest.approx(20)
    pressure.on_job(job("a" * 64))
    for _ in range(3):
        pressure.in_flight(0)
    assert pressure.start_estimate_s(INTERACTIVE) == 0, "and what it does not know any more has ended"
