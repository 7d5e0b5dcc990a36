"""One request in its lane: what it reads, what it said so far, how it ended."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from synth_consumer.engines.chattts.sampling import Sampling
from synth_consumer.engines.chattts.weights import Vocabulary


class End(StrEnum):
    """Why a request left its lane."""

    NATURAL = "natural"  # the model said so
    LIMIT = "limit"  # it was not done after the most tokens it may have
    NOT_FINITE = "not finite"  # the model's output is no number


@dataclass(eq=False, slots=True)
class Run:
    """One request in its lane."""

    lane: int
    prompt: Tensor  # embeddings, (positions, hidden)
    sampling: Sampling
    max_tokens: int
    vocabulary: Vocabulary
    tokens: list[tuple[int, ...]] = field(default_factory=list)  # without the one that ends it
    end: End | None = None
    read: int = 0  # positions of the prompt
    _states: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Positions in the cache; the last chosen token is not there yet."""
        return self.read + max(0, len(self.tokens) - 1)

    @property
    def untaken(self) -> int:
        """Tokens whose hidden states have not been taken yet."""
        return len(self._states)

    def waiting(self) -> Tensor:
        """The hidden states of the tokens that nobody took yet, (tokens, hidden)."""
        return torch.stack(self._states) if self._states else self.prompt[:0]

    def take(self) -> Tensor:
        """The same, and they are let go of."""
        states, self._states = self.waiting(), []
        return states

    def say(self, tokens: tuple[int, ...], state: Tensor) -> None:
        """Note what was chosen from a hidden state."""
        if min(tokens) < 0:
            self.end = End.NOT_FINITE
        elif self.vocabulary.end in tokens:
            self.end = End.NATURAL
        else:
            self.tokens.append(tokens)
            self._states.append(state)
            if len(self.tokens) >= self.max_tokens:
                self.end = End.LIMIT


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive positions of a prompt that are read in one step."""

    run: Run
    first: int
    count: int

    @property
    def embeddings(self) -> Tensor:
        """(count, hidden)."""
        return self.run.prompt[self.first : self.first + self.count]

    @property
    def last(self) -> bool:
        """Whether the prompt is read with it."""
        return self.first + self.count == len(self.run.prompt)


def next_stretches(reading: Iterable[Run], most: int) -> list[Stretch]:
    """What is read of the prompts in one step: the next stretch of the first, and of others as far as they fit.

    Where a prompt is cut depends on `most` alone, not on who else reads: its last bits depend on the cuts.

    Args:
        reading: oldest first.
        most: positions of a stretch, and of all of a step.
    """
    taken: list[Stretch] = []
    for run in reading:
        count = min(most, run.prompt.shape[0] - run.read)
        if sum(stretch.count for stretch in taken) + count > most:
            break
        taken.append(Stretch(run, run.read, count))
    return taken
