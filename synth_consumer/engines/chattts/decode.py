"""Continuous batching: lanes, each with a request and a past of its own, all one token further per step.

A request joins at the next step and leaves at its own end. Prompts are read in stretches, a bounded length a step, so
that running lanes never wait long. A request's tokens are its own solo run's, to the bit, whatever the other lanes do.
"""

from collections import deque
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from synth_consumer.engines.chattts.graphs import CudaRecorder, GraphStep, Recorder
from synth_consumer.engines.chattts.lane_step import LaneStep, RowStep, few_rows
from synth_consumer.engines.chattts.pasts import FixedPasts, GrowingPasts
from synth_consumer.engines.chattts.runs import Run, Stretch, next_stretches
from synth_consumer.engines.chattts.sampling import Sampler, Sampling
from synth_consumer.engines.chattts.weights import Model, Vocabulary

# Positions of prompts per step: on two CPU cores they make a step of 16 lanes about two thirds longer.
PROMPT_STRETCH = 64


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
            prompt_stretch: positions of prompts read per step; a request's result depends on it in the last bits.
            recorder: replay recorded steps; None: CUDA graphs on a GPU, row by row on the CPU.
        """
        self._model = model
        self._positions = min(positions or model.positions, model.positions)
        self._stretch = prompt_stretch
        self._lanes = lanes
        self._samplers: dict[Vocabulary, Sampler] = {}
        if recorder is None and model.norm.device.type == "cuda":
            recorder = CudaRecorder()
        self._recorded: GraphStep | None = None
        if recorder is not None:
            fixed = FixedPasts(model, lanes, self._positions)
            self._recorded = GraphStep(model, fixed, self._sampler(model.speech), recorder)
            self._rows = RowStep(model, fixed, self._sampler)
        else:
            self._rows = RowStep(model, GrowingPasts(model, self._positions), self._sampler)
        self._free = list(range(lanes))
        self._reading: deque[Run] = deque()
        self._running: list[Run] = []
        self._due: list[Run] = []

    @property
    def lanes(self) -> int:
        """Requests held at once."""
        return self._lanes

    @property
    def free(self) -> int:
        """Lanes that a request can join."""
        return len(self._free)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._reading or self._running)

    def prepare(self) -> None:
        """Do what would make a first step slow; only while idle."""
        with torch.inference_mode():
            for step in self._steps:
                step.prepare()

    def join(self, prompt: Tensor, sampling: Sampling, max_tokens: int, vocabulary: Vocabulary | None = None) -> Run:
        """Give the lowest free lane to a request; it is read from the next step on.

        Args:
            prompt: embeddings, (positions, hidden).
            sampling: its seed and manner.
            max_tokens: lowered to what the lane holds.
            vocabulary: of its tokens; None: speech.

        Raises:
            ValueError: the prompt fills the lane.
            IndexError: no lane is free.
        """
        # The last position is where recorded steps park lanes.
        room = self._positions - 1 - prompt.shape[0]
        if room < 1:
            raise ValueError(f"a prompt of {prompt.shape[0]} positions leaves no room in {self._positions}")
        prompt = prompt.to(self._model.norm.dtype)
        self._free.sort()
        run = Run(self._free.pop(0), prompt, sampling, min(max_tokens, room), vocabulary or self._model.speech)
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

    def step(self, held_back: Container[Run] = ()) -> list[Run]:
        """A token of every running lane, and the next stretch of the prompts.

        Whatever it raises, nothing is lost: what was not done is done by the next step, and what was done is told by it
        before anything else is done.

        Args:
            held_back: requests that wait in their lanes.

        Returns:
            The requests that went further by a token or ended.
        """
        if not self._due:
            with torch.inference_mode():
                self._advance(
                    [run for run in self._running if run not in held_back],
                    next_stretches((run for run in self._reading if run not in held_back), self._stretch),
                )
        due, self._due = self._due, []
        return due

    @property
    def _steps(self) -> list[LaneStep]:
        return [self._recorded, self._rows] if self._recorded else [self._rows]

    def _step_of(self, run: Run) -> LaneStep:
        recorded = self._recorded if run.vocabulary is self._model.speech else None
        return recorded or self._rows

    def _advance(self, runs: Sequence[Run], stretches: Sequence[Stretch]) -> None:
        if self._recorded and (own := [run for run in runs if self._step_of(run) is self._recorded]):
            self._note(own, *self._recorded.advance(own))
        others = [run for run in runs if self._step_of(run) is self._rows]
        if not (others or stretches):
            return
        tokens, states, read = self._rows.advance(others, stretches)
        self._note(others, tokens, states)
        for stretch, state in zip(stretches, read, strict=True):
            if stretch.last:
                self._begin(stretch.run, state)
            else:
                stretch.run.read += stretch.count

    def _begin(self, run: Run, state: Tensor) -> None:
        """Choose the first tokens. The run runs only once they are there: memory may run out on the way."""
        sampler = self._sampler(run.vocabulary)
        sampler.join(run.lane, run.sampling)
        choice = sampler.choose(few_rows(run.vocabulary, state), torch.tensor([run.lane], device=state.device))
        length = run.prompt.shape[0]
        self._step_of(run).start(run.lane, length, choice.tokens[0])
        sampler.say(choice)
        run.read = length
        self._reading.remove(run)
        self._running.append(run)
        self._note([run], choice.tokens.tolist(), [state[0]])

    def _sampler(self, vocabulary: Vocabulary) -> Sampler:
        if vocabulary not in self._samplers:
            self._samplers[vocabulary] = Sampler(
                self._lanes,
                vocabulary.codebooks,
                vocabulary.tokens,
                vocabulary.end,
                self._model.norm.device,
            )
        return self._samplers[vocabulary]

    def _note(self, runs: Sequence[Run], chosen: Sequence[Sequence[int]], states: Sequence[Tensor]) -> None:
        for run, tokens, state in zip(runs, chosen, states, strict=True):
            run.say(tuple(tokens), state)
            self._due.append(run)
            if run.end:
                self._running.remove(run)
                self._release(run)

    def _release(self, run: Run) -> None:
        self._step_of(run).stop(run.lane)
        self._free.append(run.lane)
