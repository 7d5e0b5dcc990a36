"""Takes that never end, end twice, or are overtaken."""

from dataclasses import replace

import pytest

from schemas.audio import AudioChunk
from tests.uploader_world import MadeTake, make_job, make_take, speech
from uploader.assembly import Assembly, ChunkVerdict, EndedTake, RecordPosition


def at(offset: int, partition: int = 0) -> RecordPosition:
    return RecordPosition("tts.audio", partition, offset)


def feed(assembly: Assembly, chunks: list[AudioChunk], *, start: int = 0, now: float = 0) -> list[ChunkVerdict]:
    return [assembly.chunk(at(start + n), chunk, now=now) for n, chunk in enumerate(chunks)]


def ended(assembly: Assembly, take: MadeTake, offset: int) -> EndedTake:
    result = assembly.finished(at(offset), take.finished, now=0)
    assert result is not None
    return result


def test_a_stored_take_supersedes_the_others_of_its_job() -> None:
    job = make_job("text")
    first, second, other = make_take(job=job), make_take(job=job), make_take()
    assembly = Assembly()
    feed(assembly, second.chunks[:1])
    feed(assembly, other.chunks[:1], start=1)
    feed(assembly, first.chunks, start=2)
    settled = assembly.settled(ended(assembly, first, 5).take, stored=True)

    assert [take.take_id for take in settled] == [first.take_id, second.take_id]
    assert feed(assembly, second.chunks[1:], start=6) == [ChunkVerdict.LATE] * 2
    assert assembly.is_growing(other.take_id)
    # Its end is looked at all the same: the synthesis is stored, so it is told again from there.
    assert ended(assembly, second, 8).problem == "another take of the job is stored"


def test_a_failed_take_leaves_the_others_of_its_job_their_chance() -> None:
    job = make_job("text")
    bad, good = make_take(job=job), make_take(job=job)
    assembly = Assembly()
    feed(assembly, good.chunks)
    settled = assembly.settled(ended(assembly, bad, 3).take, stored=False)

    assert [take.take_id for take in settled] == [bad.take_id]
    assert ended(assembly, good, 4).problem is None


def test_an_end_told_twice_is_dealt_with_once() -> None:
    take = make_take()
    assembly = Assembly()
    feed(assembly, take.chunks)
    first = ended(assembly, take, 3)

    assert assembly.finished(at(4), take.finished, now=0) is None
    assert assembly.is_in_hand(take.take_id)
    assert [p.offset for p in assembly.settled(first.take, stored=True)[0].positions] == [0, 1, 2, 3, 4]
    assert assembly.finished(at(5), take.finished, now=0) is None
    assert not assembly.is_in_hand(take.take_id)


def test_silent_takes_go_after_a_time_and_a_pause_does_not_count() -> None:
    take = make_take()
    assembly = Assembly()
    feed(assembly, take.chunks[:2], now=100)

    assert assembly.stale(now=159, after_s=60) == []
    assembly.heard_all(150)
    assert assembly.stale(now=209, after_s=60) == []
    assert [each.take_id for each in assembly.stale(now=210, after_s=60)] == [take.take_id]
    assert feed(assembly, take.chunks[2:], start=2) == [ChunkVerdict.LATE]
    assert ended(assembly, take, 3).problem == "given up after 60 s without a chunk"


def test_an_abandoned_take_goes_at_once() -> None:
    take = make_take()
    assembly = Assembly()
    feed(assembly, take.chunks)

    abandoned = assembly.abandoned(take.take_id)
    assert abandoned is not None
    assert len(abandoned.positions) == 3
    assert assembly.abandoned(take.take_id) is None
    assert len(assembly) == 0


def test_room_is_made_by_the_take_that_was_silent_longest() -> None:
    old, young = make_take(), make_take()
    assembly = Assembly()
    feed(assembly, young.chunks[:1], now=1)
    feed(assembly, old.chunks[:1], start=1, now=0)

    dropped = assembly.idlest()
    assert dropped is not None
    assert dropped.take_id == old.take_id


def test_lost_partitions_take_their_takes_along_and_these_may_come_again() -> None:
    here, there, overtaken = make_take(), make_take(), make_take()
    assembly = Assembly()
    for n, chunk in enumerate(here.chunks):
        assembly.chunk(at(n, 0), chunk, now=0)
        assembly.chunk(at(n, 1), there.chunks[n], now=0)
    feed(assembly, overtaken.chunks, start=3)
    assembly.abandoned(overtaken.take_id)

    assert assembly.partitions() == {("tts.audio", 0), ("tts.audio", 1)}
    assert [take.take_id for take in assembly.lost({("tts.audio", 0)})] == [here.take_id]
    assert feed(assembly, here.chunks) == [ChunkVerdict.KEEP] * 3
    assert feed(assembly, overtaken.chunks, start=3) == [ChunkVerdict.KEEP] * 3
    assert assembly.is_growing(there.take_id)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"chunks": 4}, "1 of 4 chunks did not arrive"),
        ({"chunks": 2}, "3 chunks arrived, 2 were announced"),
        ({"samples": 7}, "60000 samples arrived, 7 were announced"),
        ({"sample_rate": 8_000}, "chunks have 24000 Hz, 8000 Hz were announced"),
    ],
)
def test_what_was_announced_must_have_arrived(change: dict[str, int], problem: str) -> None:
    take = make_take()
    assembly = Assembly()
    feed(assembly, take.chunks)
    result = assembly.finished(at(3), take.finished.model_copy(update=change), now=0)

    assert result is not None
    assert result.problem == problem


def test_chunks_that_disagree_spoil_their_take() -> None:
    take = make_take(speech(2.0))
    assembly = Assembly()
    verdicts = feed(assembly, [take.chunks[0], replace(take.chunks[1], sample_rate=8_000), take.chunks[1]])

    assert verdicts == [ChunkVerdict.KEEP, ChunkVerdict.SPOILED, ChunkVerdict.SPOILED]
    assert ended(assembly, take, 3).problem == "chunks of one take disagree about its job or sample rate"


def test_memory_of_ended_takes_is_bounded() -> None:
    assembly = Assembly(remembered=2)
    made = [make_take(speech(0.5)) for _ in range(3)]
    for take in made:
        feed(assembly, take.chunks)
        assembly.settled(ended(assembly, take, 1).take, stored=True)

    assert feed(assembly, made[0].chunks) == [ChunkVerdict.KEEP]
    assert feed(assembly, made[2].chunks) == [ChunkVerdict.LATE]
