"""Drives a speech engine the way the worker does, from one thread, and gathers what came."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from synth_consumer.engines.protocol import (
    AudioProduced,
    EngineEvent,
    LanesChanged,
    Pcm,
    SpeechEngine,
    SpeechTask,
    TakeFailed,
    TaskRefusedError,
)

ZH = "你好，欢迎致电。今天有一百个好人来了。"
EN = "Hello, welcome to the service. It is a good day."


def task(take_id: str, text: str = ZH, **changes: object) -> SpeechTask:
    """A task with the usual values."""
    language = "en" if text.isascii() else "zh"
    usual = {
        "language": language,
        "dialect": {"zh": "mandarin", "en": "english"}[language],
        "voice": "female1",
        "seed": 7,
    }
    return SpeechTask(take_id, text, **(usual | changes))  # type: ignore[arg-type]


@dataclass
class Outcome:
    """All that came of one take."""

    blocks: list[Pcm] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    ends: list[EngineEvent] = field(default_factory=list)
    refused: str | None = None

    @property
    def pcm(self) -> Pcm:
        return np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.float32)

    @property
    def failed(self) -> TakeFailed | None:
        return next((end for end in self.ends if isinstance(end, TakeFailed)), None)


def drive(
    engine: SpeechEngine,
    tasks: Iterable[SpeechTask],
    after_step: Callable[[int], None] = lambda _: None,
    max_steps: int = 20_000,
) -> dict[str, Outcome]:
    """Speak all tasks, filling free lanes in order, until every take has ended."""
    waiting = deque(tasks)
    outcomes = {task.take_id: Outcome() for task in waiting}
    held: set[str] = set()
    for step in range(max_steps):
        while waiting and len(held) < engine.lanes:
            next_task = waiting.popleft()
            try:
                engine.join(next_task)
                held.add(next_task.take_id)
            except TaskRefusedError as error:
                outcomes[next_task.take_id].refused = error.code
        if not held:
            return outcomes
        for event in engine.step():
            if isinstance(event, LanesChanged):
                continue
            assert event.take_id in held, "an event of a take that is not there"
            outcome = outcomes[event.take_id]
            if isinstance(event, AudioProduced):
                outcome.blocks.append(event.pcm)
                outcome.progress.append(event.progress)
            else:
                outcome.ends.append(event)
                held.remove(event.take_id)
        after_step(step)
    raise AssertionError(f"{held} did not end in {max_steps} steps")


def speak(engine: SpeechEngine, one: SpeechTask) -> Outcome:
    """Speak one task alone."""
    return drive(engine, [one])[one.take_id]
