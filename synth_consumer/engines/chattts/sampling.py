"""The choice of the next tokens, as the package makes it: same order, same noise, but per request.

The package reseeds its generator at every token, so a seed stands for one constant matrix of exponential noise. Drawn
for each request alone, as for a batch of one, it makes a result independent of what else is being decoded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTY_WINDOW = 16  # tokens
_FEWEST_KEPT = 3  # by top-P and by top-K


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request chooses; defaults are the package's for speech."""

    seed: int
    temperature: float = 0.3
    top_p: float = 0.7
    top_k: int = 20  # 0: no bound
    repetition_penalty: float = 1.05
    min_tokens: int = 0  # no end before this many


@dataclass(frozen=True, slots=True)
class Choice:
    """Tokens that were chosen and do not count as said yet."""

    tokens: Tensor  # (rows, codebooks); -1 in a row whose logits are not all numbers
    lanes: Tensor  # (rows,)
    recent: Tensor  # (rows, codebooks, window)


class Sampler:
    """What the lanes choose by. State is held in tensors of fixed place, one row of each per lane."""

    def __init__(self, lanes: int, codebooks: int, vocabulary: int, end: int, device: torch.device) -> None:
        rows = (lanes, codebooks)
        self._end = end
        self._generator = torch.Generator(device=device)
        self._noise = torch.ones(*rows, vocabulary, device=device)
        # A place that holds no token yet holds `vocabulary`, one past the last.
        self._recent = torch.full((*rows, PENALTY_WINDOW), vocabulary, dtype=torch.long, device=device)
        self._penalty = torch.ones(lanes, PENALTY_WINDOW + 1, device=device)
        self._temperature = torch.ones(lanes, device=device)
        self._excess = torch.zeros(lanes, device=device)
        self._kept = torch.full((lanes,), vocabulary, dtype=torch.long, device=device)
        self._held_open = torch.zeros(lanes, dtype=torch.long, device=device)
        self._one_less = torch.full((lanes,), -1, dtype=torch.long, device=device)

    @property
    def changing(self) -> tuple[Tensor, ...]:
        """What a choice changes."""
        return self._recent, self._held_open

    def join(self, lane: int, sampling: Sampling) -> None:
        """Make a lane choose by these values; its history is empty."""
        vocabulary = self._noise.shape[-1]
        generator = self._generator.manual_seed(sampling.seed)
        self._noise[lane] = torch.empty_like(self._noise[lane]).flatten(0, -2).exponential_(1, generator=generator)
        self._recent[lane] = vocabulary
        counts = torch.arange(PENALTY_WINDOW + 1, device=self._noise.device)
        self._penalty[lane] = torch.pow(sampling.repetition_penalty, counts)
        self._temperature[lane] = sampling.temperature
        self._excess[lane] = 1 - sampling.top_p
        self._kept[lane] = min(max(sampling.top_k, _FEWEST_KEPT), vocabulary) if sampling.top_k else vocabulary
        self._held_open[lane] = sampling.min_tokens

    def choose(self, logits: Tensor, lanes: Tensor) -> Choice:
        """The next tokens of some lanes. Changes nothing: memory may run out anywhere before `say`.

        Args:
            logits: (rows, codebooks, vocabulary), float32.
            lanes: the lane of each row, (rows,).
        """
        recent = self._recent[lanes]
        logits = logits / self._temperature[lanes, None, None]
        logits = self._penalised(logits, recent, lanes)
        kept = _cut(logits, self._excess[lanes, None, None], self._kept[lanes, None, None])
        kept[..., self._end].masked_fill_(self._held_open[lanes, None] > 0, -torch.inf)
        probability = torch.softmax(kept, -1)
        chosen = (probability / self._noise[lanes]).argmax(-1)
        chosen = torch.where(probability.isnan().any(-1).any(-1, keepdim=True), -1, chosen)
        return Choice(chosen, lanes, torch.cat([recent[..., 1:], chosen.clamp_min(0)[..., None]], -1))

    def say(self, choice: Choice) -> None:
        """Count the tokens as said."""
        self._recent.index_copy_(0, choice.lanes, choice.recent)
        self._held_open.index_add_(0, choice.lanes, self._one_less[: len(choice.lanes)])

    def _penalised(self, logits: Tensor, recent: Tensor, lanes: Tensor) -> Tensor:
        vocabulary = logits.shape[-1]
        counts = torch.zeros(*recent.shape[:2], vocabulary + 1, dtype=torch.long, device=logits.device)
        counts.scatter_add_(-1, recent, torch.ones_like(recent))
        table = self._penalty[lanes, None].expand(-1, recent.shape[1], -1)
        penalty = table.gather(-1, counts[..., :vocabulary])
        return torch.where(logits < 0, logits * penalty, logits / penalty)


def _cut(logits: Tensor, excess: Tensor, kept: Tensor) -> Tensor:
    """Logits with -inf where top-P, then top-K, leaves a token out; one sort serves both."""
    ordered, order = logits.sort(-1)
    left_out = ordered.softmax(-1).cumsum(-1) <= excess
    left_out[..., -_FEWEST_KEPT:] = False
    remaining = ordered.masked_fill(left_out, -torch.inf)
    place = (logits.shape[-1] - kept).expand(*logits.shape[:-1], 1)
    left_out |= remaining < remaining.gather(-1, place)
    return logits.masked_fill(torch.zeros_like(left_out).scatter(-1, order, left_out), -torch.inf)
