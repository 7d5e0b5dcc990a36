"""How the lanes advance: what every manner is told of them, and that of the CPU, row by row, prompts beside them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Protocol

import torch
from torch import Tensor

from synth_consumer.engines.chattts.forward import (
    FEWEST_ROWS,
    Attention,
    LaneByLane,
    PromptStretch,
    SideBySide,
    embedded,
    logits,
    padded,
    stable_rows,
    transform,
)
from synth_consumer.engines.chattts.pasts import Pasts
from synth_consumer.engines.chattts.runs import Run, Stretch
from synth_consumer.engines.chattts.sampling import Choice, Sampler
from synth_consumer.engines.chattts.weights import Model, Vocabulary

SamplerOf = Callable[[Vocabulary], Sampler]
Advanced = tuple[list[list[int]], Sequence[Tensor]]
"""Tokens chosen, and hidden states (hidden,) in memory of their own, one of each per run."""


class LaneStep(Protocol):
    """What every manner of step is told of the lanes.

    A step is all or nothing: where memory runs out, the same one can be taken again.
    """

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """A lane's prompt was read, and its first tokens (codebooks,) were chosen."""

    def stop(self, lane: int) -> None:
        """A lane is free."""

    def prepare(self) -> None:
        """Do what would make a first step slow, while no lane is in use."""


class RowStep:
    """Only lanes in use are rows; each attends to its own past. For the CPU, where work is what costs.

    Stretches of prompts are rows of the same products: the weights are read once for all.
    """

    def __init__(self, model: Model, pasts: Pasts, sampler_of: SamplerOf) -> None:
        self._model, self._pasts, self._sampler_of = model, pasts, sampler_of
        self._buckets = stable_rows(model)
        self._device = model.norm.device

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """Nothing is kept here."""

    def stop(self, lane: int) -> None:
        """Its past is not needed any more."""
        self._pasts.let_go(lane)

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def advance(
        self, runs: Sequence[Run], stretches: Sequence[Stretch]
    ) -> tuple[list[list[int]], list[Tensor], list[Tensor]]:
        """One token of every run, and the stretches of others' prompts.

        Returns:
            Tokens and hidden states as `Advanced`; and the hidden state (1, hidden) of each stretch's last position.
        """
        states: list[Tensor] = []
        speech: list[Tensor] = []
        read: list[Tensor] = []
        for lanes, prompts in self._parts(runs, stretches):
            hiddens = self._hiddens(lanes, prompts)
            if lanes:
                # The head takes padding too: its products are stable at the same counts of rows.
                rows = hiddens[: self._bucket(len(lanes))]
                speech.append(logits(self._model.speech, rows)[: len(lanes)])
                states += [state.clone() for state in hiddens[: len(lanes)]]
            ends = accumulate((stretch.count for stretch in prompts), initial=len(lanes))
            read += [hiddens[end - 1 : end].clone() for end in islice(ends, 1, None)]
        choices = [
            self._chosen(runs, torch.cat(speech), states, vocabulary)
            for vocabulary in dict.fromkeys(run.vocabulary for run in runs)
        ]
        return self._said(runs, choices), states, read

    def _parts(
        self, runs: Sequence[Run], stretches: Sequence[Stretch]
    ) -> Iterator[tuple[Sequence[Run], Sequence[Stretch]]]:
        """In products of a stable size: together where they fit."""
        most = self._buckets[-1]
        if len(runs) + sum(stretch.count for stretch in stretches) <= most:
            yield runs, stretches
            return
        for at in range(0, len(runs), most):
            yield runs[at : at + most], ()
        for stretch in stretches:
            yield (), (stretch,)

    def _bucket(self, count: int) -> int:
        return next((n for n in self._buckets if n >= count), count)

    def _hiddens(self, runs: Sequence[Run], stretches: Sequence[Stretch]) -> Tensor:
        used = len(runs) + sum(stretch.count for stretch in stretches)
        count = self._bucket(used)
        rows = self._model.norm.new_zeros(count, self._model.hidden)
        for vocabulary in dict.fromkeys(run.vocabulary for run in runs):
            own = [n for n, run in enumerate(runs) if run.vocabulary is vocabulary]
            tokens = torch.tensor([runs[n].tokens[-1] for n in own], device=self._device)
            rows[torch.tensor(own, device=self._device)] = embedded(vocabulary, tokens)
        positions = [run.length for run in runs]
        parts: list[tuple[Attention, int]] = []
        if runs:
            pasts = [self._pasts.of(run.lane, run.length + 1) for run in runs]
            parts.append((LaneByLane(pasts, positions[:]), len(runs)))
        for stretch in stretches:
            rows[len(positions) : len(positions) + stretch.count] = stretch.embeddings
            positions += range(stretch.first, stretch.first + stretch.count)
            past = self._pasts.of(stretch.run.lane, stretch.first + stretch.count)
            parts.append((PromptStretch(past, stretch.first, stretch.count), stretch.count))
        places = torch.tensor([*positions, *[0] * (count - used)], device=self._device)
        return transform(self._model, rows, places, SideBySide(parts))

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
