"""The engine host with an engine that does as the test says."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from synth_consumer.engines.protocol import (
    AudioProduced,
    EngineEvent,
    Pcm,
    SpeechTask,
    TakeFailed,
    TakeFinished,
    TaskRefusedError,
)
from synth_consumer.worker.engine_host import EngineHost
from synth_consumer.worker.frames import Audio, Beat, Cancel, ChildEvent, Failed, Finished, Join, Warm
from synth_consumer.worker.pcm import NotFiniteError, to_pcm16


class ScriptedEngine:
    """Says in each step what the test put there."""

    name = "scripted"
    revision = "1"
    sample_rate = 10
    lanes = 2

    def __init__(self, *steps: Sequence[EngineEvent]) -> None:
        self.steps = list(steps)
        self.cancelled: list[str] = []

    def load(self) -> None: ...

    def warm_up(self) -> None: ...

    def join(self, task: SpeechTask) -> None:
        if not task.text:
            raise TaskRefusedError("text_not_speakable", "nothing to say")

    def step(self) -> Sequence[EngineEvent]:
        return self.steps.pop(0) if self.steps else []

    def cancel(self, take_id: str) -> None:
        self.cancelled.append(take_id)

    def close(self) -> None: ...


def _task(take_id: str, text: str = "hello") -> SpeechTask:
    return SpeechTask(take_id, text, "en", "english", "female1", 1)


def _host(engine: ScriptedEngine) -> tuple[EngineHost, list[ChildEvent]]:
    said: list[ChildEvent] = []
    return EngineHost(engine, said.append, first_chunk_s=0.5, chunk_s=1.0, clock=lambda: 0.0), said


def _ramp(count: int) -> Pcm:
    return np.linspace(-1, 1, count, dtype=np.float32)


def test_samples_become_chunks_and_an_end_that_adds_them_up() -> None:
    engine = ScriptedEngine(
        [AudioProduced("a", _ramp(17), 0.4)], [AudioProduced("a", _ramp(6), 1.0), TakeFinished("a")]
    )
    host, said = _host(engine)
    host.handle(Join(_task("a")))
    assert host.busy
    host.step()
    host.step()
    chunks = [event for event in said if isinstance(event, Audio)]
    assert [len(chunk.pcm) // 2 for chunk in chunks] == [5, 10, 8]
    assert [chunk.index for chunk in chunks] == [0, 1, 2]
    whole = b"".join(chunk.pcm for chunk in chunks)
    assert whole == to_pcm16(_ramp(17)) + to_pcm16(_ramp(6))
    assert said[-1] == Finished("a", 3, 23, hashlib.sha256(whole).hexdigest(), False)
    assert not host.busy


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_end_the_take_and_free_its_lane(bad: float) -> None:
    spoilt = _ramp(4)
    spoilt[2] = bad
    engine = ScriptedEngine([AudioProduced("a", spoilt, 0.5), AudioProduced("b", _ramp(5), 0.5)])
    host, said = _host(engine)
    host.handle(Join(_task("a")))
    host.handle(Join(_task("b")))
    host.step()
    assert said[0] == Failed("a", "bad_audio", "samples are not finite")
    assert engine.cancelled == ["a"]
    assert isinstance(said[1], Audio), "the other lane goes on"


def test_refusals_failures_and_empty_takes_are_told() -> None:
    engine = ScriptedEngine([TakeFailed("a", "gpu_out_of_memory", "full")], [TakeFinished("b")])
    host, said = _host(engine)
    host.handle(Join(_task("r", "")))
    host.handle(Join(_task("a")))
    host.step()
    host.handle(Join(_task("b")))
    host.step()
    assert said == [
        Failed("r", "text_not_speakable", "nothing to say"),
        Failed("a", "gpu_out_of_memory", "full"),
        Failed("b", "bad_audio", "the engine made no samples"),
    ]
    assert not host.busy


def test_a_cancelled_take_says_nothing_more() -> None:
    engine = ScriptedEngine([AudioProduced("a", _ramp(20), 1.0), TakeFinished("a")])
    host, said = _host(engine)
    host.handle(Join(_task("a")))
    host.handle(Cancel("a"))
    host.handle(Cancel("unknown"))
    host.step()
    assert said == []
    assert engine.cancelled == ["a"]


def test_warming_is_answered_with_a_beat() -> None:
    host, said = _host(ScriptedEngine())
    host.handle(Warm())
    assert said == [Beat(0, 0.0)]


def test_pcm_is_clipped_and_little_endian() -> None:
    assert (
        to_pcm16(np.array([0, 1, -1, 2, -2, 0.5], np.float32))
        == np.array([0, 32_767, -32_767, 32_767, -32_767, 16_384], "<i2").tobytes()
    )
    with pytest.raises(NotFiniteError):
        to_pcm16(np.array([np.nan], np.float32))
