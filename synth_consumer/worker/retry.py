"""What follows a take that did not end well. Pure."""

from dataclasses import dataclass

from schemas.codes import ErrorCode
from schemas.requests import MAX_SEED
from synth_consumer.engines.protocol import SEEDS_PER_TAKE

MAX_DEATHS = 3
"""An engine that died under a job this often will die again: the job ends."""
MAX_REPEATS = 2
"""Further takes after one whose audio was bad or whose memory did not suffice."""


@dataclass(frozen=True, slots=True)
class SpeakAgain:
    """Make another take."""

    seed_shift: int = 0  # added to the seed of the take before
    alone: bool = False  # with no other take in the engine


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job ends without audio. `dead_letter`: keep the job for people to look at."""

    code: ErrorCode
    message: str
    dead_letter: bool = False


def after_failure(code: ErrorCode, message: str, *, repeats: int) -> SpeakAgain | GiveUp:
    """The engine lives and reported that a take failed.

    Args:
        code: what it reported.
        message: in words.
        repeats: takes of this job that were already repeated for such a reason.
    """
    if repeats < MAX_REPEATS:
        if code is ErrorCode.BAD_AUDIO:
            return SpeakAgain(seed_shift=SEEDS_PER_TAKE)
        if code is ErrorCode.GPU_OUT_OF_MEMORY:
            return SpeakAgain(alone=True)
    return GiveUp(code, message)


def before_take(deaths: int, last: ErrorCode | None) -> SpeakAgain | GiveUp:
    """Whether a job may be spoken, after engines died or hung while they spoke it.

    Args:
        deaths: how often, other workers included.
        last: how the last one ended, when this worker saw it.
    """
    if deaths >= MAX_DEATHS:
        code = last or ErrorCode.ENGINE_CRASHED
        how = "stopped answering" if code is ErrorCode.ENGINE_TIMEOUT else "died"
        return GiveUp(code, f"the engine {how} {deaths} times while speaking this", dead_letter=True)
    # Which of several takes killed the engine is not known, so all of them are suspects and go on alone.
    return SpeakAgain(alone=deaths > 0)


def shifted(seed: int, shift: int) -> int:
    """A seed for another attempt, within the range every reader of JSON keeps exact."""
    return (seed + shift) % (MAX_SEED + 1)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing, bounded delays between attempts to start an engine."""

    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row; none after none."""
        if failures <= 0:
            return 0.0
        # The exponent is bounded so that a thousand failures do not overflow.
        return min(self.most_s, self.first_s * self.factor ** min(failures - 1, 32))
