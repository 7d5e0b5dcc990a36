"""A small engine for tests of the engine process: its texts say what it does."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synth_consumer.engines.protocol import (
    AudioProduced,
    EngineEvent,
    EngineUnavailableError,
    SpeechTask,
    TakeFinished,
)


class ObedientEngine:
    """`hello` ends at once; `long` has ten blocks, `forever` no end; `exit`, `hang` and `print` do so."""

    name = "obedient"
    revision = "1"
    sample_rate = 100
    lanes = 2

    def __init__(self, settings: str) -> None:
        self._settings = settings
        self._held: dict[str, list[str]] = {}

    def load(self) -> None:
        if self._settings == "unavailable":
            raise EngineUnavailableError("the weights are missing")

    def warm_up(self) -> None:
        if self._settings:
            with Path(self._settings).open("a") as marks:
                marks.write(".")

    def join(self, task: SpeechTask) -> None:
        self._held[task.take_id] = [task.text] * (10 if task.text == "long" else 1)

    def step(self) -> Sequence[EngineEvent]:
        take_id, blocks = next(iter(self._held.items()))
        word = blocks.pop()
        match word:
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(3_600)
            case "print":
                print("a library that talks", flush=True)
            case "forever":
                time.sleep(0.01)
                blocks.append(word)
        events: list[EngineEvent] = [AudioProduced(take_id, np.zeros(100, np.float32), 0.5)]
        self._held[take_id] = self._held.pop(take_id)  # the next lane's turn
        if not blocks:
            del self._held[take_id]
            events.append(TakeFinished(take_id))
        return events

    def cancel(self, take_id: str) -> None:
        self._held.pop(take_id, None)

    def close(self) -> None: ...


def make(settings: str) -> ObedientEngine:
    """Called in the engine process."""
    return ObedientEngine(settings)
