"""Keeps one engine process alive for a slot, gives takes their lanes and tells each what becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from infra.logging import get_logger
from schemas.codes import ErrorCode
from synth_consumer.engines.protocol import SpeechTask
from synth_consumer.worker import metrics
from synth_consumer.worker.engine_process import EngineGoneError, EngineLaunch, EngineProcess, start_engine
from synth_consumer.worker.frames import Audio, Beat, Cancel, Failed, Finished, Join, Lanes, Ready, Warm
from synth_consumer.worker.lane_gate import LaneGate
from synth_consumer.worker.retry import Backoff

_log = get_logger(__name__)

OnAudio = Callable[[Audio], Awaitable[None]]


@dataclass(slots=True)
class _Take:
    on_audio: OnAudio
    end: "asyncio.Future[Finished | Failed]"


class EngineKeeper:
    """One engine at a time. A dead or hung one is replaced after a growing delay; its takes learn of it."""

    def __init__(
        self, slot: int, launch: EngineLaunch, *, backoff: Backoff, keep_alive_s: float, on_change: Callable[[], None]
    ) -> None:
        self._slot = slot
        self._launch = launch
        self._backoff = backoff
        self._keep_alive_s = keep_alive_s
        self._on_change = on_change
        self._takes: dict[str, _Take] = {}
        self._process: EngineProcess | None = None
        self._warming = False
        self._relaying = False  # the bus is slow, not the engine
        self._heard_at = 0.0  # loop time
        self._down_since: float | None = None
        self._useful = False  # this engine brought a take to its end
        self.gate = LaneGate()
        self.up = asyncio.Event()

    @property
    def ready(self) -> Ready:
        """What the running engine said of itself. Only while `up` is set."""
        if self._process is None:
            raise EngineGoneError(ErrorCode.ENGINE_CRASHED, "there is no engine now")
        return self._process.ready

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None while there is none."""
        return self._process.pid if self._process else None

    @property
    def down_s(self) -> float:
        """Seconds since the last engine was lost; 0 while one is up, or before the first."""
        return 0.0 if self._down_since is None else asyncio.get_running_loop().time() - self._down_since

    async def speak(self, task: SpeechTask, on_audio: OnAudio) -> Finished | Failed:
        """Speak one take; the caller holds a lane of `gate`.

        Args:
            task: what to speak.
            on_audio: called with each chunk, in order; while it waits, the engine is held back.

        Raises:
            EngineGoneError: the engine died or hung meanwhile.
            KafkaError: `on_audio` raised it; the take was cancelled.
        """
        if self._process is None:
            raise EngineGoneError(ErrorCode.ENGINE_CRASHED, "there is no engine now")
        loop = asyncio.get_running_loop()
        if not self._takes:
            self._heard_at = loop.time()
        take = _Take(on_audio, loop.create_future())
        self._takes[task.take_id] = take
        self._process.tell(Join(task))
        try:
            return await take.end
        finally:
            if self._takes.pop(task.take_id, None) is not None and self._process is not None:
                self._process.tell(Cancel(task.take_id))

    async def run(self) -> None:
        """Start an engine, relay its events, replace it when it is gone; runs until cancelled.

        Raises:
            EngineRefusedError: the engine cannot be loaded here.
        """
        failures = 0
        while True:
            await asyncio.sleep(self._backoff.delay_s(failures))
            self._useful = False
            try:
                await self._one_life()
            except EngineGoneError as gone:
                failures = 1 if self._useful else failures + 1
                self._lost(gone, failures)

    async def _one_life(self) -> None:
        process = await start_engine(self._launch)
        loop = asyncio.get_running_loop()
        self._process, self._heard_at, self._down_since, self._warming = process, loop.time(), None, False
        ready = process.ready
        _log.info(
            "engine ready",
            slot=self._slot,
            engine=ready.name,
            engine_revision=ready.revision,
            lanes=ready.lanes,
            pid=process.pid,
            load_s=ready.load_s,
            warm_s=ready.warm_s,
        )
        watching = asyncio.create_task(self._watch(process))
        self.gate.open(ready.lanes)
        self.up.set()
        self._on_change()
        try:
            await self._relay(process)
        finally:
            self.up.clear()
            self.gate.close()
            self._process = None
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await process.kill()

    async def _relay(self, process: EngineProcess) -> None:
        loop = asyncio.get_running_loop()
        while True:
            event = await process.hear()
            match event:
                case Audio():
                    self._relaying = True
                    await self._relay_audio(process, event)
                    self._relaying = False
                case Finished() | Failed():
                    self._useful = True
                    take = self._takes.pop(event.take_id, None)
                    if take is not None and not take.end.done():
                        take.end.set_result(event)
                case Beat(steps, seconds):
                    self._warming = False
                    metrics.STEPS.inc(steps)
                    metrics.STEP_SECONDS.inc(seconds)
                case Lanes(lanes):
                    _log.warning("engine changed its lanes", slot=self._slot, lanes=lanes)
                    self.gate.open(lanes)
                    self._on_change()
                case _:
                    raise EngineGoneError(ErrorCode.ENGINE_CRASHED, f"unexpected {type(event).__name__}")
            self._heard_at = loop.time()

    async def _relay_audio(self, process: EngineProcess, event: Audio) -> None:
        take = self._takes.get(event.take_id)
        if take is None:  # cancelled while the chunk was on its way
            return
        try:
            await take.on_audio(event)
        except KafkaError as error:
            self._takes.pop(event.take_id, None)
            process.tell(Cancel(event.take_id))
            if not take.end.done():
                take.end.set_exception(error)

    async def _watch(self, process: EngineProcess) -> None:
        """Ends an engine that hangs, and keeps an idle one awake."""
        loop = asyncio.get_running_loop()
        limit = self._launch.step_timeout_s
        while True:
            await asyncio.sleep(min(limit, self._keep_alive_s) / 5)
            if self._relaying:
                self._heard_at = loop.time()
            silent_s = loop.time() - self._heard_at
            if self._warming and silent_s > self._launch.load_timeout_s:
                process.declare_hung(self._launch.load_timeout_s)
            elif self._takes and not self._warming and silent_s > limit:
                process.declare_hung(limit)
            elif not self._takes and not self._warming and silent_s > self._keep_alive_s:
                self._warming = True
                self._heard_at = loop.time()
                process.tell(Warm())

    def _lost(self, gone: EngineGoneError, failures: int) -> None:
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
        takes, self._takes = self._takes, {}
        delay_s = self._backoff.delay_s(failures)
        _log.error(
            "engine lost", slot=self._slot, code=gone.code, reason=str(gone), takes=len(takes), next_start_in_s=delay_s
        )
        metrics.ENGINE_RESTARTS.labels(gone.code).inc()
        for take in takes.values():
            if not take.end.done():
                take.end.set_exception(EngineGoneError(gone.code, str(gone)))
        self._on_change()
