"""The transformer over some rows: one new token each of many lanes, and stretches of prompts. Pure but for the pasts.

A product's last bits depend on its shape: on the CPU, fewer than four rows go through another kernel (measured, see
docs/decisions). So there are never fewer, and `stable_rows` looks at load whether more rows change anything here.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from synth_consumer.engines.chattts.weights import Model, Vocabulary

FEWEST_ROWS = 4
# Rows of one product, lanes that are not in use included.
ROW_BUCKETS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


class Attention(Protocol):
    """Writes the new keys and values down, and attends to all so far."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(rows, heads, head_dim) thrice; returns (rows, heads * head_dim)."""
        ...


def transform(model: Model, rows: Tensor, positions: Tensor, attend: Attention) -> Tensor:
    """Run the layers.

    Args:
        model: whose.
        rows: embeddings, (rows, hidden).
        positions: of each row in its own sequence, (rows,).
        attend: where keys and values are.

    Returns:
        Hidden states behind the last norm, (rows, hidden).
    """
    count = rows.shape[0]
    cos, sin = model.cos[positions, None, None], model.sin[positions, None, None]
    half = model.head_dim // 2
    for index, layer in enumerate(model.layers):
        normed = _norm(rows, layer.norm_attention, model.eps)
        qkv = layer.qkv(normed).view(count, 3, model.heads, model.head_dim)
        turned = qkv[:, :2]
        turned = turned * cos + torch.cat([-turned[..., half:], turned[..., :half]], -1) * sin
        rows = rows + layer.out(attend(index, turned[:, 0], turned[:, 1], qkv[:, 2]))
        normed = _norm(rows, layer.norm_mlp, model.eps)
        gate, up = layer.gate_up(normed).chunk(2, -1)
        rows = rows + layer.down(functional.silu(gate) * up)
    return _norm(rows, model.norm, model.eps)


def _norm(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = rows.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(rows.dtype)


def embedded(vocabulary: Vocabulary, tokens: Tensor) -> Tensor:
    """Embeddings of chosen tokens: (rows, codebooks) to (rows, hidden)."""
    return torch.stack([table[tokens[:, n]] for n, table in enumerate(vocabulary.embeddings)], -1).sum(-1)


def logits(vocabulary: Vocabulary, hiddens: Tensor) -> Tensor:
    """(rows, hidden) to (rows, codebooks, tokens), float32. The last bits depend on the number of rows."""
    return vocabulary.head(hiddens).float().view(-1, vocabulary.codebooks, vocabulary.tokens)


def padded(rows: Tensor, count: int) -> Tensor:
    """Zeros below the rows, up to a count."""
    return functional.pad(rows, (0, 0, 0, count - rows.shape[0])) if rows.shape[0] < count else rows


class LaneByLane:
    """Attention of each row to its own lane's past only: what others hold cannot touch it, nor costs anything.

    By plain products: for one row they read a long past a tenth faster than the fused attention does, on the CPU.
    """

    def __init__(self, pasts: Sequence[Tensor], lengths: Sequence[int]) -> None:
        """`pasts`: one of each row, as `Pasts.of` gives it; `lengths`: what stands there so far."""
        # Views of all layers at once: one each per call would cost as much as the attention of a short past.
        self._lanes = [
            (
                past[:, :, :, length].unbind(),
                past[:, 0, :, : length + 1].transpose(-1, -2).unbind(),
                past[:, 1, :, : length + 1].unbind(),
            )
            for past, length in zip(pasts, lengths, strict=True)
        ]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attention`."""
        rows = (query * query.shape[-1] ** -0.5)[:, :, None].unbind()
        written = torch.stack((key, value), 1).unbind()
        parts = []
        for row, pair, (places, keys, values) in zip(rows, written, self._lanes, strict=True):
            places[layer].copy_(pair)
            weights = torch.softmax(torch.bmm(row, keys[layer]), -1)
            parts.append(torch.bmm(weights, values[layer]))
        return torch.stack(parts).flatten(1)


class PromptStretch:
    """Attention of consecutive positions of one lane, each to what is before it."""

    def __init__(self, past: Tensor, first: int, count: int) -> None:
        self._past, self._first, self._last = past, first, first + count
        ahead = torch.arange(first, self._last, device=past.device)[:, None]
        self._mask = torch.arange(self._last, device=past.device) <= ahead

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attention`."""
        keys, values = self._past[layer]
        keys[:, self._first : self._last] = key.transpose(0, 1)
        values[:, self._first : self._last] = value.transpose(0, 1)
        out = functional.scaled_dot_product_attention(
            query[None].transpose(1, 2),
            keys[None, :, : self._last],
            values[None, :, : self._last],
            attn_mask=self._mask,
        )
        return out[0].transpose(0, 1).flatten(1)


class SideBySide:
    """Each part of the rows attends in its own way; rows behind the last part are padding and come out as zeros."""

    def __init__(self, parts: Sequence[tuple[Attention, int]]) -> None:
        self._parts = parts

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attention`."""
        outs, at = [], 0
        for attend, count in self._parts:
            outs.append(attend(layer, query[at : at + count], key[at : at + count], value[at : at + count]))
            at += count
        return padded(torch.cat(outs), query.shape[0])


def stable_rows(model: Model, candidates: Iterable[int] = ROW_BUCKETS) -> tuple[int, ...]:
    """The counts of rows at which a row comes out the same, to the bit, as in the largest of them.

    Looks at every shape of product in a layer and at the head of speech, on this machine, with these threads. Where
    counts fall into several such sets, it is the set with the most counts.
    """
    counts = sorted(set(candidates))
    alike = {most: {n for n in counts if n <= most} for most in counts}
    layer = model.layers[0]
    generator = torch.Generator().manual_seed(1)
    for product in (layer.qkv, layer.out, layer.gate_up, layer.down, model.speech.head):
        rows = torch.randn(counts[-1], product.width, generator=generator).to(product.like)
        results = {n: product(rows[:n].contiguous()) for n in counts}
        for most, same in alike.items():
            same -= {n for n in same if n < most and not torch.equal(results[n], results[most][:n])}
    best = max(counts, key=lambda most: (len(alike[most]), most))
    return tuple(sorted(alike[best]))
