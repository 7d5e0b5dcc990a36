"""Drives one engine: commands in, chunks out. Runs in the engine process, in its main thread."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.audio import BYTES_PER_SAMPLE
from schemas.codes import ErrorCode
from synth_consumer.engines.protocol import (
    AudioProduced,
    EngineEvent,
    LanesChanged,
    SpeechEngine,
    SpeechTask,
    TakeFailed,
    TakeFinished,
    TaskRefusedError,
)
from synth_consumer.worker.chunking import ChunkCutter
from synth_consumer.worker.frames import Audio, Beat, Cancel, ChildEvent, Command, Failed, Finished, Join, Lanes, Warm
from synth_consumer.worker.pcm import NotFiniteError, to_pcm16

# Seconds between beats; far below every sensible `step_timeout_s`.
_BEAT_EVERY_S = 1.0


@dataclass(slots=True)
class _Held:
    """A take in a lane and what it added up to so far."""

    cutter: ChunkCutter
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    chunks: int = 0
    samples: int = 0
    progress: float = 0.0


class EngineHost:
    """Turns an engine's steps into chunks and ends of takes."""

    def __init__(
        self,
        engine: SpeechEngine,
        say: Callable[[ChildEvent], None],
        *,
        first_chunk_s: float,
        chunk_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._say = say
        self._first_chunk_s = first_chunk_s
        self._chunk_s = chunk_s
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._steps = 0
        self._step_s = 0.0
        self._beat_at = clock()

    @property
    def busy(self) -> bool:
        """Whether takes are held, so that stepping makes sense."""
        return bool(self._held)

    def handle(self, command: Command) -> None:
        """Carry out one command."""
        match command:
            case Join(task):
                self._join(task)
            case Cancel(take_id):
                if self._held.pop(take_id, None) is not None:
                    self._engine.cancel(take_id)
            case Warm():
                self._engine.warm_up()
                self._beat()
            case _:
                raise ValueError(f"{type(command).__name__} is not expected now")

    def step(self) -> None:
        """Advance the engine once and say what came of it."""
        started = self._clock()
        events = self._engine.step()
        now = self._clock()
        self._steps += 1
        self._step_s += now - started
        for event in events:
            self._on(event)
        if now - self._beat_at >= _BEAT_EVERY_S:
            self._beat()

    def _join(self, task: SpeechTask) -> None:
        try:
            self._engine.join(task)
        except TaskRefusedError as refusal:
            self._say(Failed(task.take_id, refusal.code, str(refusal)))
            return
        cutter = ChunkCutter(self._engine.sample_rate, first_s=self._first_chunk_s, chunk_s=self._chunk_s)
        self._held[task.take_id] = _Held(cutter)

    def _on(self, event: EngineEvent) -> None:
        if isinstance(event, LanesChanged):
            self._say(Lanes(event.lanes))
            return
        held = self._held.get(event.take_id)
        if held is None:  # cancelled while the step ran
            return
        match event:
            case AudioProduced(take_id, samples, progress):
                held.progress = max(held.progress, progress)
                try:
                    pcm = to_pcm16(samples)
                except NotFiniteError as error:
                    self._engine.cancel(take_id)
                    self._fail(take_id, ErrorCode.BAD_AUDIO, str(error))
                    return
                for chunk in held.cutter.feed(pcm):
                    self._chunk(take_id, held, chunk)
            case TakeFinished(take_id, truncated):
                self._finish(take_id, held, truncated=truncated)
            case TakeFailed(take_id, code, message):
                self._fail(take_id, code, message)

    def _chunk(self, take_id: str, held: _Held, pcm: bytes) -> None:
        held.digest.update(pcm)
        held.samples += len(pcm) // BYTES_PER_SAMPLE
        self._say(Audio(take_id, held.chunks, held.progress, pcm))
        held.chunks += 1

    def _finish(self, take_id: str, held: _Held, *, truncated: bool) -> None:
        rest = held.cutter.rest()
        if rest:
            self._chunk(take_id, held, rest)
        if held.samples == 0:
            self._fail(take_id, ErrorCode.BAD_AUDIO, "the engine made no samples")
            return
        del self._held[take_id]
        self._say(Finished(take_id, held.chunks, held.samples, held.digest.hexdigest(), truncated))

    def _fail(self, take_id: str, code: str, message: str) -> None:
        del self._held[take_id]
        self._say(Failed(take_id, code, message))

    def _beat(self) -> None:
        self._say(Beat(self._steps, self._step_s))
        self._steps, self._step_s, self._beat_at = 0, 0.0, self._clock()
