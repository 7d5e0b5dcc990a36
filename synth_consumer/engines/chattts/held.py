"""A take in its lane: its sentences one after another, and how far it is. Imports no torch."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synth_consumer.engines.chattts.script import Script, Sentence
from synth_consumer.engines.protocol import AudioProduced, EngineEvent, Pcm, SpeechTask, TakeFinished

if TYPE_CHECKING:
    from synth_consumer.engines.chattts.refining import Refinement
    from synth_consumer.engines.chattts.speaking import SentenceRun, Spoken

SAMPLE_RATE = 24_000
# A sentence that still runs is never told as done.
_UNFINISHED = 0.95


@dataclass(eq=False, slots=True)
class HeldTake:
    """A take in its lane."""

    task: SpeechTask
    sentences: deque[Sentence]
    total_s: float
    progress: float = 0.0
    run: "SentenceRun | Refinement | None" = None
    tries: int = 0  # of the sentence
    truncated: bool = False
    held_back: bool = False  # until memory suffices
    due: bool = False  # its sound is to be made before its next token

    @classmethod
    def of(cls, task: SpeechTask, script: Script) -> "HeldTake":
        """Nothing of it is spoken yet."""
        total_s = sum(sentence.seconds for sentence in script.sentences)
        return cls(task, deque(script.sentences), total_s, truncated=not script.complete)

    @property
    def spelled(self) -> bool:
        """Whether the next sentence is in words."""
        return self.sentences[0].spelled

    def told(self, spoken: "Spoken") -> list[EngineEvent]:
        """The sound that its run made, as events; with the last sentence's end, the take's."""
        assert self.run is not None
        sentence, pcm = self.sentences[0], spoken.pcm
        share = 1.0 if spoken.done else self.run.share * _UNFINISHED
        if spoken.done:
            pause_s = sentence.pause_s if len(self.sentences) > 1 else 0.0
            pcm = np.concatenate([pcm, np.zeros(round(pause_s * SAMPLE_RATE), np.float32)])
            self.sentences.popleft()
            self.run, self.tries = None, 0
            self.truncated |= spoken.truncated
        left_s = sum(rest.seconds for rest in self.sentences) - (0.0 if spoken.done else sentence.seconds * share)
        before, self.progress = self.progress, max(self.progress, 1 - left_s / self.total_s)
        events = _blocks(self.task.take_id, pcm, before, self.progress)
        return events if self.sentences else [*events, TakeFinished(self.task.take_id, self.truncated)]

    def stop(self) -> None:
        """End its run, if it has one; the sentence can be begun anew."""
        if self.run is not None:
            self.run.close()
        self.run, self.due = None, False


def _blocks(take_id: str, pcm: Pcm, before: float, after: float) -> list[EngineEvent]:
    if not len(pcm):
        return []
    blocks = [pcm[at : at + SAMPLE_RATE] for at in range(0, len(pcm), SAMPLE_RATE)]
    share = (after - before) / len(blocks)
    return [AudioProduced(take_id, block, min(1.0, before + share * n)) for n, block in enumerate(blocks, start=1)]
