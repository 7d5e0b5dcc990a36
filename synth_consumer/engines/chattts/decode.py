"""Continuous batching: lanes of a static cache, each with a request of its own, all one token further per step.

A request joins at the next step and leaves at its own end. Prompts are read in stretches, one stretch a step, so that
running lanes never wait long. A request's tokens are its own solo run's, to the bit, whatever the other lanes do.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from synth_consumer.engines.chattts.forward import (
    FEWEST_ROWS,
    Cache,
    LaneByLane,
    PromptStretch,
    embedded,
    logits,
    padded,
    stable_rows,
    transform,
)
from synth_consumer.engines.chattts.graphs import GraphStep, Recorder, cuda_recorder
from synth_consumer.engines.chattts.sampling import Sampler, Sampling
from synth_consumer.engines.chattts.weights import Model

# Positions of a prompt per step: about the work of one step of 64 lanes.
PROMPT_STRETCH = 64


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

    def say(self, tokens: tuple[int, ...], state: Tensor, end_token: int) -> None:
        """Note what was chosen from a hidden state."""
        if min(tokens) < 0:
            self.end = End.NOT_FINITE
        elif end_token in tokens:
            self.end = End.NATURAL
        else:
            self.tokens.append(tokens)
            self._states.append(state)
            if len(self.tokens) >= self.max_tokens:
                self.end = End.LIMIT


class LaneStep(Protocol):
    """How the running lanes advance by a token: row by row, or as a recorded graph."""

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """A lane's prompt was read, and its first tokens (codebooks,) were chosen."""

    def stop(self, lane: int) -> None:
        """A lane is free."""

    def advance(self, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        """Tokens chosen (rows, codebooks) and hidden states (rows, hidden), one row per run."""
        ...


class RowStep:
    """Only lanes in use are rows; each attends to its own past. For the CPU, where work is what costs."""

    def __init__(self, model: Model, cache: Cache, sampler: Sampler) -> None:
        self._model, self._cache, self._sampler = model, cache, sampler
        self._buckets = stable_rows(model)

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """Nothing is kept here."""

    def stop(self, lane: int) -> None:
        """Nothing is kept here."""

    def advance(self, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        """See `LaneStep`."""
        lanes, lengths = [run.lane for run in runs], [run.length for run in runs]
        count = next(n for n in self._buckets if n >= len(runs))
        rows = padded(embedded(self._model, torch.tensor([run.tokens[-1] for run in runs])), count)
        positions = torch.tensor([*lengths, *[0] * (count - len(runs))])
        hiddens = transform(self._model, rows, positions, LaneByLane(self._cache, lanes, lengths))[: len(runs)]
        return self._sampler.choose(logits(self._model, hiddens), torch.tensor(lanes)), hiddens


class Decoder:
    """Lanes and their requests."""

    def __init__(
        self,
        model: Model,
        lanes: int,
        positions: int | None = None,
        prompt_stretch: int = PROMPT_STRETCH,
        recorder: Recorder | None = None,
    ) -> None:
        """Make the lanes.

        Args:
            model: fused weights.
            lanes: requests held at once.
            positions: of prompt and speech together, of each lane; the model's own bound when None.
            prompt_stretch: positions of a prompt read per step; a request's result depends on it in the last bits.
            recorder: replay recorded steps; None: CUDA graphs on a GPU, row by row on the CPU.
        """
        self._model = model
        self._positions = min(positions or model.positions, model.positions)
        self._stretch = prompt_stretch
        device = model.norm.device
        self._cache = Cache.empty(model, lanes, self._positions)
        self._sampler = Sampler(lanes, model.codebooks, model.audio_tokens, device)
        if recorder is None and device.type == "cuda":
            recorder = cuda_recorder
        self._step: LaneStep = (
            RowStep(model, self._cache, self._sampler)
            if recorder is None
            else GraphStep(model, self._cache, self._sampler, recorder)
        )
        self._free = list(range(lanes))
        self._reading: deque[Run] = deque()
        self._running: list[Run] = []

    @property
    def free(self) -> int:
        """Lanes that a request can join."""
        return len(self._free)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._reading or self._running)

    def join(self, prompt: Tensor, sampling: Sampling, max_tokens: int) -> Run:
        """Give the lowest free lane to a request; it is read from the next step on.

        Args:
            prompt: embeddings, (positions, hidden).
            sampling: its seed and manner.
            max_tokens: lowered to what the lane holds.

        Raises:
            ValueError: the prompt fills the lane.
            IndexError: no lane is free.
        """
        # The last position is where recorded steps park lanes.
        room = self._positions - 1 - prompt.shape[0]
        if room < 1:
            raise ValueError(f"a prompt of {prompt.shape[0]} positions leaves no room in {self._positions}")
        self._free.sort()
        run = Run(self._free.pop(0), prompt, sampling, min(max_tokens, room))
        self._reading.append(run)
        return run

    def leave(self, run: Run) -> None:
        """Free the lane of a request that has not ended."""
        if run in self._running:
            self._running.remove(run)
        elif run in self._reading:
            self._reading.remove(run)
        else:
            return
        self._release(run)

    def step(self) -> list[Run]:
        """One stretch of one prompt, and one token of every running lane.

        Returns:
            The requests that went further by a token or ended.
        """
        with torch.inference_mode():
            # Lanes first: a lane that starts in this step has its first token by then.
            advanced = list(self._running)
            if advanced:
                self._note(advanced, *self._step.advance(advanced))
            if self._reading and (begun := self._read()):
                advanced.append(begun)
            return advanced

    def _read(self) -> Run | None:
        run = self._reading[0]
        part = run.prompt[run.read : run.read + self._stretch]
        count, first = part.shape[0], run.read
        rows = padded(part, FEWEST_ROWS)
        positions = torch.arange(first, first + rows.shape[0], device=rows.device).clamp_max(self._positions - 1)
        hiddens = transform(self._model, rows, positions, PromptStretch(self._cache, run.lane, first, count))
        run.read += count
        if run.read < run.prompt.shape[0]:
            return None
        self._reading.popleft()
        self._running.append(run)
        self._sampler.join(run.lane, run.sampling)
        state = hiddens[count - 1 : count]
        lane = torch.tensor([run.lane], device=state.device)
        chosen = self._sampler.choose(logits(self._model, state), lane)
        self._step.start(run.lane, run.read, chosen[0])
        self._note([run], chosen, state)
        return run

    def _note(self, runs: Sequence[Run], chosen: Tensor, states: Tensor) -> None:
        # One piece of memory per row, so that a slow reader keeps only its own.
        for run, tokens, state in zip(runs, chosen.tolist(), states, strict=True):
            run.say(tuple(tokens), state.clone(), self._model.audio_tokens - 1)
            if run.end:
                self._running.remove(run)
                self._release(run)

    def _release(self, run: Run) -> None:
        self._step.stop(run.lane)
        self._free.append(run.lane)
