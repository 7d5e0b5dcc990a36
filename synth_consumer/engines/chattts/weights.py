"""The language model's weights, laid out for the decode loop: few large products in place of many small ones.

The package's own modules keep working: their weights become views into the fused ones, so nothing is held twice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer; matrices are (out, in)."""

    norm_attention: Tensor
    qkv: Tensor
    out: Tensor
    norm_mlp: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Model:
    """What one decode step needs."""

    layers: tuple[Layer, ...]
    norm: Tensor
    eps: float
    heads: int
    head_dim: int
    cos: Tensor  # (positions, head_dim)
    sin: Tensor
    code_embeddings: tuple[Tensor, ...]  # one (audio tokens, hidden) per codebook
    code_heads: Tensor  # (codebooks * audio tokens, hidden), weight norm folded in
    audio_tokens: int

    @property
    def codebooks(self) -> int:
        """Tokens chosen per step, 4 in the published model."""
        return len(self.code_embeddings)

    @property
    def hidden(self) -> int:
        """Width of the model."""
        return int(self.norm.shape[0])

    @property
    def positions(self) -> int:
        """Longest sequence, prompt and all."""
        return int(self.cos.shape[0])


def fuse(chat: Any, dtype: torch.dtype = torch.float32) -> Model:
    """The model of a loaded `ChatTTS.Chat`.

    Args:
        chat: loaded; its llama is changed in place to share the fused weights.
        dtype: float32 is exact; anything else is a copy and an approximation.
    """
    with torch.no_grad():
        llama = chat.gpt.gpt
        config = llama.config
        head_dim = llama.layers[0].self_attn.head_dim
        if config.num_key_value_heads != config.num_attention_heads:
            raise ValueError("grouped key-value heads are not supported")
        position = torch.arange(config.max_position_embeddings, device=chat.device)[None]
        cos, sin = llama.rotary_emb(llama.norm.weight, position)
        embed = chat.embed
        return Model(
            layers=tuple(_layer(layer, dtype) for layer in llama.layers),
            norm=_own(llama.norm, dtype),
            eps=config.rms_norm_eps,
            heads=config.num_attention_heads,
            head_dim=head_dim,
            cos=cos[0].to(dtype),
            sin=sin[0].to(dtype),
            code_embeddings=tuple(part.weight.detach().to(dtype) for part in embed.emb_code),
            code_heads=torch.cat([head.weight.detach() for head in embed.head_code]).to(dtype),
            audio_tokens=embed.num_audio_tokens,
        )


def _layer(layer: Any, dtype: torch.dtype) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm_attention=_own(layer.input_layernorm, dtype),
        qkv=_joined([attention.q_proj, attention.k_proj, attention.v_proj]).to(dtype),
        out=_own(attention.o_proj, dtype),
        norm_mlp=_own(layer.post_attention_layernorm, dtype),
        gate_up=_joined([mlp.gate_proj, mlp.up_proj]).to(dtype),
        down=_own(mlp.down_proj, dtype),
    )


def _own(part: Any, dtype: torch.dtype) -> Tensor:
    # A weight as loaded is a stretch of the mapped file, which stays in memory as long as one of them is in use.
    part.weight = torch.nn.Parameter(part.weight.detach().clone(), requires_grad=False)
    owned: Tensor = part.weight.detach().to(dtype)
    return owned


def _joined(parts: list[Any]) -> Tensor:
    if any(part.bias is not None for part in parts):
        raise ValueError("projections with a bias are not supported")
    joined = torch.cat([part.weight.detach() for part in parts])
    views = joined.split([part.weight.shape[0] for part in parts])
    for part, view in zip(parts, views, strict=True):
        part.weight = torch.nn.Parameter(view, requires_grad=False)
    return joined
