"""Any interleaving of requests, outcomes, ticks, redeliveries and crashes ends every request exactly once."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from schemas import topics
from schemas.codec import decode
from schemas.codes import AudioFormat, ErrorCode, Priority, State
from schemas.completions import EngineInfo, RequestCompleted, RequestStatus
from schemas.jobs import SynthesisJob, TranscodeRequested
from schemas.outcomes import RenditionStored, StageProgress, StoredObject, SynthesisFailed
from schemas.requests import SpeechSpec, SynthesisAdmitted
from synth_consumer.dedup.clock import on_synthesis_due, on_waiter_due
from synth_consumer.dedup.decisions import on_admitted
from synth_consumer.dedup.orders import Policy, told_write, waiter_write
from synth_consumer.dedup.rows import SynthesisRow, WaiterRow, moment, waiter_key
from synth_consumer.dedup.settlement import on_progress, on_rendition_stored, on_synthesis_failed
from synth_consumer.dedup.steps import Output, Step, Write

_FINGERPRINTS = ("a" * 64, "b" * 64)
_POLICY = Policy(stored_ttl_s=500.0, redrive_after_s=100.0, max_drives=2, progress_fan_out=2)
_FORMATS = (AudioFormat.WAV, AudioFormat.MP3)
# How far an event gets before others follow: all done; messages out, ended waiters' rows still there; bad ends marked;
# no more than the step's own rows written. A crash does the event again, and finished ones that are not committed yet.
_HOW_FAR = st.sampled_from(("done", "told", "marked", "written"))
_COMMITTED_AFTER_S = 30.0


@dataclass
class Carried:
    """An event in hand, or finished and not committed."""

    topic: str
    at: float
    step: Step
    untold: list[Output]
    again: Callable[[], Step] | None
    finished: bool = False


class Rows:
    """Tables in memory, with what a step's carrier does to them."""

    def __init__(self) -> None:
        self.syntheses: dict[str, SynthesisRow] = {}
        self.rows: dict[bytes, WaiterRow] = {}
        self.ending: set[bytes] = set()

    def synthesis(self, fingerprint: str) -> SynthesisRow | None:
        return self.syntheses.get(fingerprint)

    def waiter(self, fingerprint: str, request_id: str) -> WaiterRow | None:
        return self.rows.get(waiter_key(fingerprint, request_id))

    def waiters(self, fingerprint: str) -> Iterator[WaiterRow]:
        return (
            row
            for key, row in self.rows.items()
            if row.fingerprint == fingerprint and key not in self.ending and row.end is None and not row.remove_at
        )

    def waiting(self, fingerprint: str) -> int:
        return sum(1 for row in self.rows.values() if row.fingerprint == fingerprint and not row.remove_at)

    def write(self, write: Write) -> None:
        if isinstance(write.row, SynthesisRow):
            # Through the bytes, as a changelog would.
            self.syntheses[write.row.fingerprint] = SynthesisRow.from_bytes(write.row.to_bytes())
        elif isinstance(write.row, WaiterRow):
            self.rows[write.key] = WaiterRow.from_bytes(write.row.to_bytes())
        elif write.table == "syntheses":
            self.syntheses.pop(write.key.decode(), None)
        else:
            self.rows.pop(write.key, None)

    def begin(self, step: Step) -> list[Output]:
        for write in step.writes:
            self.write(write)
        self.ending.update(waiter.key for waiter in step.ends)
        return list(step.outputs)

    def mark(self, step: Step) -> None:
        for waiter in step.ends:
            if waiter.end:
                self.write(waiter_write(waiter))

    def remove(self, step: Step, now: float = 0.0) -> None:
        for waiter in step.ends:
            self.write(told_write(waiter, now))
            self.ending.discard(waiter.key)
        if step.forget is not None:
            row = self.syntheses.get(step.forget[0])
            if row is not None and row.state == "failed" and row.job_id == step.forget[1]:
                del self.syntheses[step.forget[0]]


class Dedup(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()
        self.now = 1_000.0
        self.admitted: dict[str, SynthesisAdmitted] = {}
        self.ends: dict[str, list[str]] = {}
        self.jobs: dict[str, dict[str, int]] = {}  # fingerprint → job in flight → highest drive
        self.started: Counter[str] = Counter()
        self.orders: list[TranscodeRequested] = []
        self.percents: dict[str, list[int]] = {}
        self.carried: list[Carried] = []
        self.crashes = 0
        self.deliveries: Counter[str] = Counter()

    @initialize()
    def begin(self) -> None:
        self.number = 0

    # ------------------------------------------------------------------------------------------ what happens

    @rule(
        fingerprint=st.sampled_from(_FINGERPRINTS),
        wanted=st.sampled_from(_FORMATS),
        lives_s=st.sampled_from((50.0, 5_000.0)),
        how_far=_HOW_FAR,
    )
    def request(self, fingerprint: str, wanted: AudioFormat, lives_s: float, how_far: str) -> None:
        self.number += 1
        request = SynthesisAdmitted(
            request_id=f"r{self.number}",
            fingerprint=fingerprint,
            spec=SpeechSpec(text="x", voice="female1", language="en", dialect="english"),
            format=wanted,
            priority=Priority.INTERACTIVE,
            accepted_at=moment(self.now),
            expires_at=moment(self.now + lives_s),
        )
        self.admitted[request.request_id] = request
        self.deliveries[request.request_id] += 1
        self._carry(topics.ADMITTED, lambda: self._admit(request), how_far)

    @rule(data=st.data())
    def redelivered_while_waiting(self, data: st.DataObject) -> None:
        waiting = sorted(row.request_id for row in self.rows.rows.values())
        self._send()
        if waiting:
            request = self.admitted[data.draw(st.sampled_from(waiting))]
            self.deliveries[request.request_id] += 1
            before = Counter(self.started)
            self._carry(topics.ADMITTED, lambda: self._admit(request), "done")
            assert self.started == before, "a redelivery starts nothing new"

    @rule(data=st.data(), how_far=_HOW_FAR, formats=st.sampled_from([(), (AudioFormat.WAV,), _FORMATS]))
    def stored(self, data: st.DataObject, how_far: str, formats: tuple[AudioFormat, ...]) -> None:
        found = [(fingerprint, job) for fingerprint, jobs in self.jobs.items() for job in jobs]
        if found:
            fingerprint, job_id = data.draw(st.sampled_from(found))
            self._outcome(self._store(fingerprint, job_id, formats), how_far)

    @rule(data=st.data(), good=st.booleans(), how_far=_HOW_FAR)
    def transcoded(self, data: st.DataObject, good: bool, how_far: str) -> None:
        if not self.orders:
            return
        order = data.draw(st.sampled_from(self.orders))
        if good:
            self._outcome(self._store(order.fingerprint, order.job_id, order.formats), how_far)
        else:
            event = SynthesisFailed(
                fingerprint=order.fingerprint,
                job_id=order.job_id,
                code=ErrorCode.STORAGE_UNAVAILABLE,
                message="",
                formats=order.formats,
            )
            self._outcome(lambda: on_synthesis_failed(self.rows, event, _POLICY, now=self.now), how_far)

    @rule(data=st.data(), how_far=_HOW_FAR)
    def master_lost(self, data: st.DataObject, how_far: str) -> None:
        if self.orders:
            order = data.draw(st.sampled_from(self.orders))
            event = SynthesisFailed(
                fingerprint=order.fingerprint, job_id=order.job_id, code=ErrorCode.STORAGE_UNAVAILABLE, message=""
            )
            self._outcome(lambda: on_synthesis_failed(self.rows, event, _POLICY, now=self.now), how_far)

    @rule(
        data=st.data(),
        code=st.sampled_from((ErrorCode.ENGINE_CRASHED, ErrorCode.DEADLINE_EXCEEDED)),
        how_far=_HOW_FAR,
    )
    def failed(self, data: st.DataObject, code: ErrorCode, how_far: str) -> None:
        found = [(fingerprint, job) for fingerprint, jobs in self.jobs.items() for job in jobs]
        if found:
            fingerprint, job_id = data.draw(st.sampled_from(found))
            event = SynthesisFailed(fingerprint=fingerprint, job_id=job_id, code=code, message="")
            self._outcome(lambda: on_synthesis_failed(self.rows, event, _POLICY, now=self.now), how_far)

    @rule(data=st.data(), percent=st.integers(10, 90))
    def progressed(self, data: st.DataObject, percent: int) -> None:
        found = [(fingerprint, job) for fingerprint, jobs in self.jobs.items() for job in jobs]
        if found:
            fingerprint, job_id = data.draw(st.sampled_from(found))
            event = StageProgress(fingerprint=fingerprint, job_id=job_id, state=State.SYNTHESIZING, percent=percent)
            self._outcome(lambda: on_progress(self.rows, event, _POLICY, now=self.now), "done")

    @rule(passed_s=st.sampled_from((10.0, 60.0, 600.0, 6_000.0)), how_far=_HOW_FAR)
    def tick(self, passed_s: float, how_far: str) -> None:
        self._send()
        self.now += passed_s
        if any(self.now - one.at > _COMMITTED_AFTER_S for one in self.carried):
            self.confirmed()
        for key in list(self.rows.rows):
            if key not in self.rows.ending and (step := on_waiter_due(self.rows, self.rows.rows[key], now=self.now)):
                self._carry(topics.TICKS, lambda step=step: step, how_far, again=False)
        for row in list(self.rows.syntheses.values()):
            if step := on_synthesis_due(self.rows, row, _POLICY, now=self.now):
                self._carry(topics.TICKS, lambda step=step: step, how_far, again=False)

    @rule()
    def confirmed(self) -> None:
        """The bus has confirmed what was told: rows go, offsets are committed."""
        carried, self.carried = self.carried, []
        for one in carried:
            if not one.finished:
                self.rows.mark(one.step)
                self._tell(one)
                self.rows.remove(one.step, self.now)

    @rule(
        down_s=st.sampled_from((0.0, 10.0, 60.0, 6_000.0)),
        order=st.permutations((topics.ADMITTED, topics.OUTCOMES)),
    )
    def crash(self, down_s: float, order: list[str]) -> None:
        """Killed: rows are as they were written, and what was not committed comes again, each topic in its order."""
        carried, self.carried = self.carried, []
        self.rows.ending.clear()
        self.crashes += 1
        self.now += down_s
        for topic in order:
            for one in carried:
                if one.again is not None and one.topic == topic:
                    self._carry(topic, one.again, "done")
        self.tick(0.0, "done")  # what a tick began comes up again, for the agenda is made anew

    # ---------------------------------------------------------------------------------------------- what holds

    @invariant()
    def nobody_ends_twice(self) -> None:
        for request_id, ends in self.ends.items():
            assert len(set(ends)) == 1, "one end, told again at most"
            # After a crash every delivery of its request, and what ended it, may come again.
            assert len(ends) <= 1 + (self.deliveries[request_id] + 1) * self.crashes

    @invariant()
    def everybody_waits_or_has_ended(self) -> None:
        waiting = {row.request_id for row in self.rows.rows.values() if not row.remove_at}
        if not any(one.untold for one in self.carried):
            assert waiting | set(self.ends) == set(self.admitted)

    @invariant()
    def whoever_waits_is_waited_for(self) -> None:
        """No waiter without a synthesis that is under way or has its format ordered."""
        for key, waiter in self.rows.rows.items():
            if key in self.rows.ending or waiter.end or waiter.remove_at or waiter.expires_at <= self.now:
                continue
            row = self.rows.syntheses.get(waiter.fingerprint)
            assert row is not None
            assert row.state == "pending" or waiter.format in row.orders

    @invariant()
    def one_job_in_flight(self) -> None:
        for fingerprint, row in self.rows.syntheses.items():
            if row.state == "pending" and not any(one.untold for one in self.carried):
                assert row.job_id in self.jobs[fingerprint]

    @invariant()
    def percent_never_falls(self) -> None:
        for percents in self.percents.values():
            assert percents == sorted(percents)

    def teardown(self) -> None:
        self.confirmed()
        # Time passes, nobody answers: still everybody ends.
        for _ in range(12):
            self.tick(6_000.0, "done")
        assert set(self.ends) == set(self.admitted)
        assert not self.rows.rows

    # --------------------------------------------------------------------------------------------------- means

    def _admit(self, request: SynthesisAdmitted) -> Step:
        return on_admitted(self.rows, request, None, _POLICY, now=self.now, ref=f"{request.request_id}")

    def _store(self, fingerprint: str, job_id: str, formats: tuple[AudioFormat, ...]) -> Callable[[], Step]:
        self.number += 1
        ref = f"outcome{self.number}"
        event = RenditionStored(
            fingerprint=fingerprint,
            job_id=job_id,
            take_id="t",
            master=_file(AudioFormat.FLAC),
            renditions=tuple(_file(wanted) for wanted in formats),
            duration_s=1.0,
            sample_rate=24_000,
            engine=EngineInfo(name="tone", revision="1", seed=0),
        )
        return lambda: on_rendition_stored(self.rows, event, _POLICY, now=self.now, ref=ref)

    def _outcome(self, decide: Callable[[], Step], how_far: str) -> None:
        self._carry(topics.OUTCOMES, decide, how_far)

    def _carry(self, topic: str, decide: Callable[[], Step], how_far: str, *, again: bool = True) -> None:
        self._send()
        before = dict(self.rows.syntheses)
        step = decide()
        one = Carried(topic, self.now, step, self.rows.begin(step), decide if again else None)
        self.carried.append(one)
        for fingerprint, row in self.rows.syntheses.items():
            pending = fingerprint in before and before[fingerprint].state == "pending"
            assert not pending or row.job_id == before[fingerprint].job_id, "one job at a time"
        if how_far != "written":
            self.rows.mark(step)
        if how_far in ("done", "told"):
            self._tell(one)
        if how_far == "done":
            # Only this one: those before it may still hang.
            self.rows.remove(step, self.now)
            one.finished = True

    def _send(self) -> None:
        """Only ends are told beside the next events; other messages are on their way before those are looked at."""
        for one in self.carried:
            if not one.step.ends:
                self._tell(one)

    def _tell(self, one: Carried) -> None:
        for output in one.untold:
            self._see(output)
        one.untold = []

    def _see(self, output: Output) -> None:
        value = output.message.value
        if output.topic == topics.COMPLETED:
            end = decode(RequestCompleted, value)
            self.ends.setdefault(end.data.request_id, []).append(end.data.status)
        elif output.topic == topics.STATUS:
            status = decode(RequestStatus, value)
            self.percents.setdefault(status.request_id, []).append(status.percent)
        elif output.topic == topics.TRANSCODES:
            self.orders.append(decode(TranscodeRequested, value))
        elif output.topic == topics.JOBS_INTERACTIVE:
            job = decode(SynthesisJob, value)
            known = self.jobs.setdefault(job.fingerprint, {})
            if job.job_id not in known:
                self.started[job.fingerprint] += 1
            known[job.job_id] = job.drive
            assert job.spec.seed is not None


def _file(wanted: AudioFormat) -> StoredObject:
    return StoredObject(key="k", format=wanted, bytes=1, sha256="0" * 64, url="https://cdn.test/k")


TestDedup = Dedup.TestCase
TestDedup.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
