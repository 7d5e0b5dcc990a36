"""Takes come together whatever the order, repetition, loss and interleaving of their records."""

import hashlib
import random
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.audio import AudioChunk, TakeFinished
from tests.uploader_world import MadeTake, make_job, make_take
from uploader.assembly import Assembly, ChunkVerdict, RecordPosition, Take
from uploader.settings import SpoolSettings
from uploader.spool import Spool
from uploader.transcoding import pcm_sha256

JOBS = [make_job(f"text {number}") for number in range(3)]


def take_of(job: int, samples: int, chunk_samples: int) -> MadeTake:
    pcm = np.random.default_rng(samples).integers(-9_000, 9_000, samples).astype("<i2")
    return make_take(pcm, job=JOBS[job], chunk_s=chunk_samples / 24_000)


takes = st.builds(take_of, st.integers(0, 2), st.integers(1, 60), st.integers(1, 20))
Event = AudioChunk | TakeFinished


@dataclass
class Uploader:
    """The bookkeeping of the intake, without bus and store: takes that end are settled at once."""

    spool: Spool
    assembly: Assembly = field(default_factory=Assembly)
    ended: dict[str, str | None] = field(default_factory=dict)  # take id: problem
    finished: list[RecordPosition] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def take_in(self, position: RecordPosition, event: Event) -> None:
        if isinstance(event, AudioChunk):
            verdict = self.assembly.chunk(position, event, now=0)
            if verdict is ChunkVerdict.KEEP:
                self.spool.add(event.take_id, event.index, event.pcm)
            elif verdict is ChunkVerdict.LATE:
                self.finished.append(position)
            return
        ended = self.assembly.finished(position, event, now=0)
        if ended is None:
            self.finished.append(position)
            return
        self.ended[event.take_id] = ended.problem
        if ended.problem is None:
            self.digests[event.take_id] = pcm_sha256(self.spool.samples(event.take_id))
        for take in self.assembly.settled(ended.take, stored=ended.problem is None):
            self.let_go(take)

    def let_go(self, take: Take) -> None:
        self.spool.discard(take.take_id)
        self.finished.extend(take.positions)


def read(events: list[Event], spool: Spool) -> Uploader:
    uploader = Uploader(spool)
    for offset, event in enumerate(events):
        uploader.take_in(RecordPosition("tts.audio", 0, offset), event)
    return uploader


def small_spool() -> closing[Spool]:
    # Some takes stay in memory, some spill alone, some because all together are too many.
    return closing(Spool(SpoolSettings(take_memory_bytes=60, memory_bytes=100)))


@given(take=takes, copies=st.integers(1, 3), order=st.randoms(use_true_random=False))
def test_any_order_and_repetition_of_chunks_gives_the_same_audio(
    take: MadeTake, copies: int, order: random.Random
) -> None:
    chunks = take.chunks * copies
    order.shuffle(chunks)
    with small_spool() as spool:
        uploader = read([*chunks, take.finished], spool)

    assert uploader.ended == {take.take_id: None}
    assert uploader.digests[take.take_id] == hashlib.sha256(take.pcm).hexdigest()
    assert sorted(uploader.finished) == [RecordPosition("tts.audio", 0, n) for n in range(len(chunks) + 1)]


@given(take=takes, order=st.randoms(use_true_random=False))
def test_a_lost_chunk_is_noticed(take: MadeTake, order: random.Random) -> None:
    chunks = take.chunks
    del chunks[order.randrange(len(chunks))]
    with small_spool() as spool:
        uploader = read([*chunks, take.finished], spool)

    assert uploader.ended[take.take_id] == f"1 of {len(chunks) + 1} chunks did not arrive"
    assert len(uploader.finished) == len(chunks) + 1


@given(several=st.lists(takes, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_interleaved_takes_do_not_touch_one_another(several: list[MadeTake], order: random.Random) -> None:
    queues: list[list[Event]] = [[*take.chunks, take.finished] for take in several]
    events: list[Event] = []
    while queues := [queue for queue in queues if queue]:
        events.append(order.choice(queues).pop(0))
    with small_spool() as spool:
        uploader = read(events, spool)
        left = (spool.memory_bytes, spool.disk_bytes, len(uploader.assembly))

    # Every record ends exactly once, whichever take of a job won.
    assert sorted(uploader.finished) == [RecordPosition("tts.audio", 0, n) for n in range(len(events))]
    assert left == (0, 0, 0)
    for take in several:
        if take.take_id in uploader.digests:
            assert uploader.digests[take.take_id] == hashlib.sha256(take.pcm).hexdigest()
    for job in JOBS:
        ids = {take.take_id for take in several if take.job.job_id == job.job_id}
        assert len(ids & uploader.digests.keys()) == min(1, len(ids))


@given(take=takes, cut=st.integers(0, 60), order=st.randoms(use_true_random=False))
def test_a_restart_anywhere_loses_nothing(take: MadeTake, cut: int, order: random.Random) -> None:
    """Nothing of an unfinished take is finished, so whoever reads on begins before its first chunk."""
    other = take_of(0, 30, 7) if take.job is not JOBS[0] else take_of(1, 30, 7)
    events: list[Event] = [*other.chunks, *take.chunks]
    order.shuffle(events)
    events += [take.finished, other.finished]
    with small_spool() as spool:
        before = read(events[:cut], spool)
    done = {position.offset for position in before.finished}
    committed = next((offset for offset in range(len(events)) if offset not in done), len(events))
    with small_spool() as spool:
        after = Uploader(spool)
        for offset, event in list(enumerate(events))[committed:]:
            after.take_in(RecordPosition("tts.audio", 0, offset), event)

    for made in (take, other):
        if made.take_id not in before.digests:
            assert after.digests[made.take_id] == hashlib.sha256(made.pcm).hexdigest()
