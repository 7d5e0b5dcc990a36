"""The engine's keeper with a real engine process that holds an engine made for these tests."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from schemas.codes import ErrorCode
from synth_consumer.engines.protocol import SpeechTask
from synth_consumer.worker.engine_keeper import EngineKeeper
from synth_consumer.worker.engine_process import EngineGoneError, EngineLaunch, EngineRefusedError
from synth_consumer.worker.frames import Audio, Failed, Finished, Open
from synth_consumer.worker.retry import Backoff
from tests.waiting import eventually

_ROOT = Path(__file__).parents[2]


def _launch(settings: str = "", step_timeout_s: float = 10.0) -> EngineLaunch:
    opening = Open("tests.unit.worker_engine:make", settings, first_chunk_s=0.5, chunk_s=1.0)
    return EngineLaunch(opening, 30.0, step_timeout_s, {"PYTHONPATH": str(_ROOT)})


@asynccontextmanager
async def _kept(
    launch: EngineLaunch, keep_alive_s: float = 60.0, on_change: Callable[[], None] = lambda: None
) -> AsyncIterator[EngineKeeper]:
    keeper = EngineKeeper(0, launch, backoff=Backoff(first_s=0.05), keep_alive_s=keep_alive_s, on_change=on_change)
    task = asyncio.create_task(keeper.run())
    try:
        await asyncio.wait_for(keeper.up.wait(), 30)
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _speak(keeper: EngineKeeper, take_id: str, text: str, heard: list[Audio]) -> Finished | Failed:
    async def on_audio(audio: Audio) -> None:
        heard.append(audio)

    task = SpeechTask(take_id, text, "en", "english", "female1", 1)
    async with keeper.gate.lane(alone=False):
        return await keeper.speak(task, on_audio)


async def test_takes_in_two_lanes_end_each_on_their_own() -> None:
    heard: list[Audio] = []
    async with _kept(_launch()) as keeper:
        assert keeper.ready.lanes == 2
        ends = await asyncio.gather(*(_speak(keeper, name, "hello", heard) for name in "abc"))
    assert [type(end) for end in ends] == [Finished] * 3
    assert {audio.take_id for audio in heard} == {"a", "b", "c"}


async def test_a_dead_engine_is_told_and_replaced() -> None:
    async with _kept(_launch()) as keeper:
        pid = keeper.pid
        with pytest.raises(EngineGoneError) as gone:
            await _speak(keeper, "a", "exit", [])
        assert gone.value.code is ErrorCode.ENGINE_CRASHED
        await eventually(lambda: keeper.pid not in {None, pid}, 30, "another engine")
        assert isinstance(await _speak(keeper, "b", "hello", []), Finished)


async def test_a_silent_engine_is_killed_and_called_hung() -> None:
    async with _kept(_launch(step_timeout_s=0.5)) as keeper:
        pid = keeper.pid
        assert pid is not None
        with pytest.raises(EngineGoneError) as gone:
            await _speak(keeper, "a", "hang", [])
        assert gone.value.code is ErrorCode.ENGINE_TIMEOUT
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_slow_bus_is_not_taken_for_a_hung_engine() -> None:
    async def slow(_: Audio) -> None:
        await asyncio.sleep(0.4)

    async with _kept(_launch(step_timeout_s=0.5)) as keeper:
        task = SpeechTask("a", "long", "en", "english", "female1", 1)
        async with keeper.gate.lane(alone=False):
            assert isinstance(await keeper.speak(task, slow), Finished)


async def test_a_cancelled_take_frees_its_lane() -> None:
    async with _kept(_launch()) as keeper:
        heard: list[Audio] = []
        forever = asyncio.create_task(_speak(keeper, "a", "forever", heard))
        await eventually(lambda: heard, 10)
        forever.cancel()
        await asyncio.gather(forever, return_exceptions=True)
        assert keeper.gate.busy == 0
        assert isinstance(await _speak(keeper, "b", "hello", []), Finished)
        count = len(heard)
        assert isinstance(await _speak(keeper, "c", "hello", []), Finished)
        assert len(heard) == count, "nothing more is heard of it"


async def test_an_idle_engine_is_kept_awake(tmp_path: Path) -> None:
    marks = tmp_path / "warmed"
    async with _kept(_launch(settings=str(marks)), keep_alive_s=0.2):
        # Once at the start, then again and again.
        await eventually(lambda: marks.exists() and len(marks.read_text()) >= 3, 10)


async def test_what_an_engine_prints_does_not_break_the_protocol() -> None:
    async with _kept(_launch()) as keeper:
        assert isinstance(await _speak(keeper, "a", "print", []), Finished)


async def test_an_engine_that_cannot_be_loaded_says_why() -> None:
    keeper = EngineKeeper(0, _launch("unavailable"), backoff=Backoff(), keep_alive_s=60, on_change=lambda: None)
    with pytest.raises(EngineRefusedError, match="weights are missing"):
        await asyncio.wait_for(keeper.run(), 30)


async def test_the_engine_ignores_the_terminals_ctrl_c() -> None:
    async with _kept(_launch()) as keeper:
        assert keeper.pid is not None
        os.kill(keeper.pid, signal.SIGINT)
        assert isinstance(await _speak(keeper, "a", "hello", []), Finished)
