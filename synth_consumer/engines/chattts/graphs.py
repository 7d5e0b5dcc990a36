"""A step as a recorded graph, one for each bucket of lanes and of length: on a GPU a step is mostly launches.

Shapes and places are fixed, so a recording can be replayed: rows are lanes, the lanes in use and those below them;
a lane without a request keeps to a parking position of its own and what it computes is thrown away. What is recorded
and replayed is tested on the CPU; the gain on a GPU is not measured.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from synth_consumer.engines.chattts.forward import ROW_BUCKETS, embedded, logits, transform
from synth_consumer.engines.chattts.lane_step import Advanced
from synth_consumer.engines.chattts.pasts import FixedPasts
from synth_consumer.engines.chattts.runs import Run
from synth_consumer.engines.chattts.sampling import Sampler
from synth_consumer.engines.chattts.weights import Model

# Positions attended to grow by this much.
_REACH = 256

Work = Callable[[], None]
Recorder = Callable[[Work], Work]
"""Makes of some work a function that does it again; may do the work itself on the way."""


class CudaRecorder:
    """Records CUDA graphs. They share one pool of memory, as no two of them ever run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """See `Recorder`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Lets libraries choose their kernels and take their memory before the recording.
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        replay: Work = graph.replay
        return replay


class GraphStep:
    """`LaneStep` by recordings."""

    def __init__(self, model: Model, pasts: FixedPasts, sampler: Sampler, recorder: Recorder) -> None:
        lanes, positions = pasts.keys.shape[1], pasts.keys.shape[3]
        device = model.norm.device
        self._model, self._pasts, self._sampler, self._recorder = model, pasts, sampler, recorder
        # What is masked out is still multiplied, by zero: it must be a number.
        pasts.keys.zero_()
        pasts.values.zero_()
        self._parking = positions - 1
        self._tokens = torch.zeros(lanes, model.speech.codebooks, dtype=torch.long, device=device)
        self._length = torch.full((lanes,), self._parking, dtype=torch.long, device=device)
        self._active = torch.zeros(lanes, dtype=torch.long, device=device)
        self._chosen = torch.zeros_like(self._tokens)
        self._hiddens = torch.zeros(lanes, model.hidden, dtype=model.norm.dtype, device=device)
        self._rows = [n for n in ROW_BUCKETS if n < lanes] + [lanes]
        self._reaches = [*range(_REACH, positions, _REACH), positions]
        self._replays: dict[tuple[int, int], Work] = {}

    @property
    def recorded(self) -> int:
        """Recordings made so far."""
        return len(self._replays)

    def start(self, lane: int, length: int, tokens: Tensor) -> None:
        """Leave the parking position."""
        self._tokens[lane] = tokens.clamp_min(0)
        self._length[lane] = length
        self._active[lane] = 1

    def stop(self, lane: int) -> None:
        """Go back to it; a request that ended in no number must not leave it to the next."""
        self._length[lane] = self._parking
        self._active[lane] = 0
        self._pasts.keys[:, lane].zero_()
        self._pasts.values[:, lane].zero_()

    def prepare(self) -> None:
        """Record every step there can be. All lanes are parked, so a recording changes nobody's past."""
        for rows in self._rows:
            for reach in self._reaches:
                self._replay(rows, reach)

    def advance(self, runs: Sequence[Run]) -> Advanced:
        """One token of every run."""
        rows = next(n for n in self._rows if n > max(run.lane for run in runs))
        longest = max(run.length for run in runs) + 1
        replay = self._replay(rows, next(n for n in self._reaches if n >= longest))
        # Memory is taken before the replay, which cannot be taken back.
        states = [torch.empty_like(self._hiddens[0]) for _ in runs]
        replay()
        chosen = self._chosen.tolist()
        for run, state in zip(runs, states, strict=True):
            state.copy_(self._hiddens[run.lane])
        return [chosen[run.lane] for run in runs], states

    def _replay(self, rows: int, reach: int) -> Work:
        if (rows, reach) not in self._replays:
            # The recorder may run the work; what it changes is put back, also where its memory runs out.
            changed = (self._tokens, self._length, *self._sampler.changing)
            before = [tensor.clone() for tensor in changed]
            try:
                self._replays[rows, reach] = self._recorder(self._work(rows, reach))
            finally:
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)
        return self._replays[rows, reach]

    def _work(self, rows: int, reach: int) -> Work:
        lanes = torch.arange(rows, device=self._length.device)

        def work() -> None:
            positions = self._length[:rows].clone()
            attend = _Masked(self._pasts, lanes, positions, reach)
            speech = self._model.speech
            hiddens = transform(self._model, embedded(speech, self._tokens[:rows]), positions, attend)
            choice = self._sampler.choose(logits(speech, hiddens), lanes)
            self._sampler.say(choice)
            self._hiddens[:rows] = hiddens
            self._chosen[:rows] = choice.tokens
            self._tokens[:rows] = choice.tokens.clamp_min(0)
            self._length[:rows] += self._active[:rows]

        return work


class _Masked:
    """Attention of all rows at once over the first positions of every lane."""

    def __init__(self, pasts: FixedPasts, lanes: Tensor, positions: Tensor, reach: int) -> None:
        self._pasts, self._reach, self._rows = pasts, reach, len(lanes)
        self._at = (lanes, slice(None), positions)
        self._mask = (torch.arange(reach, device=positions.device) <= positions[:, None])[:, None, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attention`."""
        keys, values = self._pasts.keys[layer], self._pasts.values[layer]
        keys[self._at] = key
        values[self._at] = value
        out = functional.scaled_dot_product_attention(
            query[:, :, None],
            keys[: self._rows, :, : self._reach],
            values[: self._rows, :, : self._reach],
            attn_mask=self._mask,
        )
        return out[:, :, 0].flatten(1)
