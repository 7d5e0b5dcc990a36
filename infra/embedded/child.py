"""What a child of the supervisor is, as plain data, and when it is started again."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Probe = Callable[[], Awaitable[bool]]
"""Answers whether the child serves; OSError and TimeoutError mean not yet."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process: how it starts, how it is seen to be ready, how it is ended."""

    name: str
    kind: Literal["server", "stage"]
    argv: Sequence[str]
    env: Mapping[str, str]
    """The whole environment, nothing is inherited."""
    probe: Probe
    log: Path
    ports: Sequence[int] = ()
    """Must be free before each start."""
    needs: frozenset[str] = frozenset()
    """Names that must be ready before."""
    prepare: Callable[[], None] = field(default=lambda: None)
    """Called before each start."""
    cleanup: Callable[[], None] = field(default=lambda: None)
    """Called after each end."""
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after a pause."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It keeps dying: end the stack."""

    why: str
    """To follow the child's name."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Growing pauses, and an end to patience."""

    first_delay_s: float = 0.2
    longest_delay_s: float = 5.0
    max_deaths: int = 5
    window_s: float = 60.0

    def decide(self, deaths: Sequence[float], now: float, *, unready: int = 0) -> Restart | GiveUp:
        """What follows a death.

        Args:
            deaths: when it died, by the clock of `now`, the newest last; at least one.
            now: seconds.
            unready: how many lives in a row ended before it served. What takes long to start and then dies would
                never reach `max_deaths` within the window.
        """
        recent = sum(1 for moment in deaths if now - moment <= self.window_s)
        if recent >= self.max_deaths:
            return GiveUp(f"died {recent} times within {self.window_s:g} s")
        if unready >= self.max_deaths:
            return GiveUp(f"died {unready} times before it was ready")
        return Restart(min(self.longest_delay_s, self.first_delay_s * 2 ** max(0, max(recent, unready) - 1)))
