"""How the running lanes advance by a token: the protocol, and the way of the CPU, row by row."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from synth_consumer.engines.chattts.forward import (
    FEWEST_ROWS,
    Cache,
    LaneByLane,
    embedded,
    logits,
    padded,
    stable_rows,
    transform,
)
from synth_consumer.engines.chattts.runs import Run
from synth_consumer.engines.chattts.sampling import Choice, Sampler
from synth_consumer.engines.chattts.weights import Model, Vocabulary

SamplerOf = Callable[[Vocabulary], Sampler]
Advanced = tuple[list[list[int]], Sequence[Tensor]]
"""Tokens chosen, and hidden states (hidden,) in memory of their own, one of each per run."""


class LaneStep(Protocol):
    """All or nothing: where memory runs out, the same step can be taken again."""

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """A lane's prompt was read, and its first tokens (codebooks,) were chosen."""

    def stop(self, lane: int) -> None:
        """A lane is free."""

    def prepare(self) -> None:
        """Do what would make a first step slow, while no lane is in use."""

    def advance(self, runs: Sequence[Run]) -> Advanced:
        """One token of every run."""
        ...


class RowStep:
    """Only lanes in use are rows; each attends to its own past. For the CPU, where work is what costs."""

    def __init__(self, model: Model, cache: Cache, sampler_of: SamplerOf) -> None:
        self._model, self._cache, self._sampler_of = model, cache, sampler_of
        self._buckets = stable_rows(model)
        self._device = model.norm.device

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """Nothing is kept here."""

    def stop(self, lane: int) -> None:
        """Nothing is kept here."""

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def advance(self, runs: Sequence[Run]) -> Advanced:
        """See `LaneStep`."""
        most = self._buckets[-1]
        states: list[Tensor] = []
        speech: list[Tensor] = []
        for part in (runs[at : at + most] for at in range(0, len(runs), most)):
            hiddens = self._hiddens(part)
            # The head takes the padding too: its products are stable at the same counts of rows.
            speech.append(logits(self._model.speech, hiddens)[: len(part)])
            states += [state.clone() for state in hiddens[: len(part)]]
        choices = [
            self._chosen(runs, torch.cat(speech), states, vocabulary)
            for vocabulary in dict.fromkeys(run.vocabulary for run in runs)
        ]
        return self._said(runs, choices), states

    def _hiddens(self, runs: Sequence[Run]) -> Tensor:
        lanes, lengths = [run.lane for run in runs], [run.length for run in runs]
        count = next(n for n in self._buckets if n >= len(runs))
        rows = self._model.norm.new_zeros(count, self._model.hidden)
        for vocabulary in dict.fromkeys(run.vocabulary for run in runs):
            own = [n for n, run in enumerate(runs) if run.vocabulary is vocabulary]
            tokens = torch.tensor([runs[n].tokens[-1] for n in own], device=self._device)
            rows[torch.tensor(own, device=self._device)] = embedded(vocabulary, tokens)
        positions = torch.tensor([*lengths, *[0] * (count - len(runs))], device=self._device)
        return transform(self._model, rows, positions, LaneByLane(self._cache, lanes, lengths))

    def _chosen(
        self, runs: Sequence[Run], speech: Tensor, states: Sequence[Tensor], vocabulary: Vocabulary
    ) -> tuple[list[int], Choice, Vocabulary]:
        own = [n for n, run in enumerate(runs) if run.vocabulary is vocabulary]
        if vocabulary is self._model.speech:
            rows = speech[torch.tensor(own, device=self._device)]
        else:
            rows = few_rows(vocabulary, torch.stack([states[n] for n in own]))
        lanes = torch.tensor([runs[n].lane for n in own], device=self._device)
        return own, self._sampler_of(vocabulary).choose(rows, lanes), vocabulary

    def _said(self, runs: Sequence[Run], choices: Sequence[tuple[list[int], Choice, Vocabulary]]) -> list[list[int]]:
        tokens: list[list[int]] = [[] for _ in runs]
        for own, choice, vocabulary in choices:
            self._sampler_of(vocabulary).say(choice)
            for n, row in zip(own, choice.tokens.tolist(), strict=True):
                tokens[n] = row
        return tokens


def few_rows(vocabulary: Vocabulary, states: Tensor) -> Tensor:
    """`logits` that depend on no other row: so many rows at a time, always."""
    parts = [
        logits(vocabulary, padded(states[at : at + FEWEST_ROWS], FEWEST_ROWS))
        for at in range(0, len(states), FEWEST_ROWS)
    ]
    return torch.cat(parts)[: len(states)]
