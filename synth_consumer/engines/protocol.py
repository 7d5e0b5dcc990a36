"""What the worker asks of a speech engine, and nothing more.

An engine is driven step by step from one thread of one child process. Lanes hold takes: a take joins at the
next step and leaves at its own end, whatever the other lanes do. Engines without lockstep decoding (espeak)
simply advance one lane per step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.float32]
"""Mono samples in [-1, 1], shape (n,)."""

SEEDS_PER_TAKE = 3
"""An engine may try a sentence with `seed`, `seed + 1`, … so many in all; a further take begins behind them."""


@dataclass(frozen=True, slots=True)
class SpeechTask:
    """One take to speak. `text` is canonical; `seed` is always set (from the fingerprint when none was given)."""

    take_id: str
    text: str
    language: str  # BCP 47 primary tag: "zh", "en"
    dialect: str  # a name of the voice catalogue: "mandarin", "cantonese", "english"
    voice: str
    seed: int
    speed: int = 5  # 0..9, 5 is the voice's own pace
    temperature: float = 0.3
    top_p: float = 0.7
    top_k: int = 20
    oral: int = 0  # 0..9
    laugh: int = 0  # 0..2
    break_: int = 0  # 0..7


@dataclass(frozen=True, slots=True)
class AudioProduced:
    """The next samples of a take, in order, without gap or repeat."""

    take_id: str
    pcm: Pcm
    progress: float  # share of the take believed done, 0..1, non-decreasing


@dataclass(frozen=True, slots=True)
class TakeFinished:
    """All samples of the take were produced. `truncated` tells that some of the text is not in them."""

    take_id: str
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class TakeFailed:
    """The take ends without audio worth keeping. `code` is one of the contract's closed list."""

    take_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class LanesChanged:
    """The engine speaks only so many takes at once from now on; others that it holds wait."""

    lanes: int


EngineEvent = AudioProduced | TakeFinished | TakeFailed | LanesChanged


class SpeechEngine(Protocol):
    """Lives in a child process; no method is called from two threads."""

    name: str
    revision: str  # what made the sound: engine version and a digest of its weights or voices
    sample_rate: int  # Hz
    lanes: int  # takes held at once; fixed after load(), see `LanesChanged`

    def load(self) -> None:
        """Bring weights or libraries into memory.

        Raises:
            EngineUnavailableError: with a message that names what is missing and the command that brings it.
        """

    def warm_up(self) -> None:
        """Speak something short in every lane size that will be used, so that the first request is not the slow one."""

    def join(self, task: SpeechTask) -> None:
        """Give a free lane to a task. The caller never joins more than `lanes` tasks.

        Raises:
            TaskRefusedError: this task cannot be spoken (voice, dialect, nothing to say); the others are unharmed.
        """

    def step(self) -> Sequence[EngineEvent]:
        """Advance the held takes a little (aim: well below a second) and tell what came of it. Empty when idle."""

    def cancel(self, take_id: str) -> None:
        """Free the lane of a take before its end; no event follows. Unknown ids are ignored."""

    def close(self) -> None:
        """Give everything back."""


class EngineUnavailableError(Exception):
    """The engine cannot be loaded here; the message is for the operator."""


class TaskRefusedError(Exception):
    """One task cannot be spoken. `code` is one of the contract's closed list."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
