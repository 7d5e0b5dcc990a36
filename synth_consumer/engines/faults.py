"""Faults on demand: a marker in a text makes the tone engine fail in a named way. Only where a setting asks for it."""

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from schemas.codes import ErrorCode
from synth_consumer.engines.protocol import EngineEvent, Pcm, SpeechTask, TakeFailed, TaskRefusedError

_MARKER = re.compile("⟦([a-z-]+)⟧")


class FaultKind(StrEnum):
    """What a marker, such as ⟦crash⟧, makes the engine do."""

    CRASH = "crash"  # the process dies at once, after the first block
    HANG = "hang"  # step() never returns
    RAISE = "raise"  # step() raises
    OOM = "oom"  # the take ends `gpu_out_of_memory`
    REFUSE = "refuse"  # join() refuses the task
    NAN = "nan"  # samples that are not numbers
    SILENCE = "silence"  # samples that are all zero
    CLIP = "clip"  # samples flat at full scale
    TRUNCATE = "truncate"  # the take finishes with `truncated` set


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault of one take."""

    kind: FaultKind

    @property
    def truncates(self) -> bool:
        """Whether the take ends as truncated."""
        return self.kind is FaultKind.TRUNCATE

    @property
    def crashes(self) -> bool:
        """Whether the process is to die once the first block is out."""
        return self.kind is FaultKind.CRASH

    def instead_of_block(self, take_id: str, sent: int) -> Sequence[EngineEvent] | None:
        """Fail in place of the next block, where this fault does that; `sent` samples went before."""
        match self.kind:
            case FaultKind.OOM:
                return [TakeFailed(take_id, ErrorCode.GPU_OUT_OF_MEMORY, "out of memory, as the text asked")]
            case FaultKind.CRASH if sent:
                os.kill(os.getpid(), signal.SIGKILL)
            case FaultKind.HANG:
                while True:
                    time.sleep(3600)
            case FaultKind.RAISE:
                raise RuntimeError("the text asked for an error")
        return None

    def spoil(self, pcm: Pcm) -> Pcm:
        """The block as this fault leaves it."""
        match self.kind:
            case FaultKind.NAN:
                return np.full_like(pcm, np.nan)
            case FaultKind.SILENCE:
                return np.zeros_like(pcm)
            case FaultKind.CLIP:
                return np.where(pcm >= 0, np.float32(1), np.float32(-1))
        return pcm


@dataclass(frozen=True, slots=True)
class FaultMarkers:
    """Finds markers in texts. Inactive, it finds none and leaves texts alone."""

    active: bool

    def find(self, task: SpeechTask) -> Fault | None:
        """The fault that the task's text asks for, the first one when there are several.

        Raises:
            TaskRefusedError: the marker is ⟦refuse⟧.
        """
        match = _MARKER.search(task.text) if self.active else None
        if match is None or match[1] not in set(FaultKind):
            return None
        if match[1] == FaultKind.REFUSE:
            raise TaskRefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, "refused, as the text asked")
        return Fault(FaultKind(match[1]))

    def strip(self, text: str) -> str:
        """The text without its markers; never empty of sound, so that a bare marker still makes a take."""
        return (_MARKER.sub("", text).strip() or "fault") if self.active else text
