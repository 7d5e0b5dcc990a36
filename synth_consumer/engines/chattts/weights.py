"""The language model's weights, laid out for the decode loop: few large products in place of many small ones."""

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synth_consumer.engines.chattts.products import FloatProduct, Int8Product, Joiner, Product, copies

DTYPES = {
    "exact": torch.float32,
    "int8": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What activations, keys and values are held in, by the name of a precision."""


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What a lane says its tokens in: the codes of sound, or the words of the text refinement."""

    embeddings: tuple[Tensor, ...]  # one (tokens, hidden) per codebook
    head: Product  # (codebooks * tokens, hidden), weight norm folded in
    tokens: int
    end: int  # the token that ends a request

    @property
    def codebooks(self) -> int:
        """Tokens chosen per step: 4 of sound in the published model, 1 of text."""
        return len(self.embeddings)


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer."""

    norm_attention: Tensor
    qkv: Product
    out: Product
    norm_mlp: Tensor
    gate_up: Product
    down: Product


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
    speech: Vocabulary

    @property
    def hidden(self) -> int:
        """Width of the model."""
        return int(self.norm.shape[0])

    @property
    def positions(self) -> int:
        """Longest sequence, prompt and all."""
        return int(self.cos.shape[0])


def fuse(chat: Any, precision: str = "exact") -> Model:
    """The model of a loaded `ChatTTS.Chat`.

    Args:
        chat: loaded; not changed. Nothing of its transformer is shared.
        precision: of `DTYPES`; anything but "exact" is an approximation, "int8" for the CPU alone.
    """
    dtype = DTYPES[precision]
    with torch.no_grad():
        llama = chat.gpt.gpt
        join = _joiner(llama.layers[0], precision)
        config = llama.config
        head_dim = llama.layers[0].self_attn.head_dim
        if config.num_key_value_heads != config.num_attention_heads:
            raise ValueError("grouped key-value heads are not supported")
        position = torch.arange(config.max_position_embeddings, device=chat.device)[None]
        cos, sin = llama.rotary_emb(llama.norm.weight, position)
        return Model(
            layers=tuple(_layer(layer, join) for layer in llama.layers),
            norm=llama.norm.weight.detach().to(dtype, copy=True),
            eps=config.rms_norm_eps,
            heads=config.num_attention_heads,
            head_dim=head_dim,
            cos=cos[0].to(dtype),
            sin=sin[0].to(dtype),
            speech=_speech(chat.embed, dtype),
        )


def let_go(chat: Any) -> None:
    """Free the package's own transformer (720 MB) and its encoder of voices (57 MB).

    Args:
        chat: loaded and fused; it still reads prompts and has decoder and vocoder, but infers nothing any more.
    """
    del chat.gpt, chat.dvae
    gc.collect()


def _speech(embed: Any, dtype: torch.dtype) -> Vocabulary:
    return Vocabulary(
        embeddings=tuple(part.weight.detach().to(dtype) for part in embed.emb_code),
        head=FloatProduct(torch.cat([head.weight.detach() for head in embed.head_code]).to(dtype)),
        tokens=embed.num_audio_tokens,
        end=embed.num_audio_tokens - 1,
    )


def text_vocabulary(chat: Any, precision: str = "exact") -> Vocabulary:
    """The words of the text refinement. Not part of `fuse`: its head is 65 MB that few requests need."""
    dtype = DTYPES[precision]
    with torch.no_grad():
        table = chat.embed.emb_text.weight.detach().to(dtype)
        head = FloatProduct(chat.embed.head_text.weight.detach().to(dtype))
        return Vocabulary((table,), head, tokens=table.shape[0], end=int(chat.tokenizer.eos_token))


def _layer(layer: Any, join: Joiner) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm_attention=layer.input_layernorm.weight.detach().to(join.dtype, copy=True),
        qkv=join(_matrices(attention.q_proj, attention.k_proj, attention.v_proj)),
        out=join(_matrices(attention.o_proj)),
        norm_mlp=layer.post_attention_layernorm.weight.detach().to(join.dtype, copy=True),
        gate_up=join(_matrices(mlp.gate_proj, mlp.up_proj)),
        down=join(_matrices(mlp.down_proj)),
    )


def _matrices(*projections: Any) -> list[Tensor]:
    if any(part.bias is not None for part in projections):
        raise ValueError("projections with a bias are not supported")
    return [part.weight.detach() for part in projections]


def _joiner(layer: Any, precision: str) -> Joiner:
    up, query = layer.mlp.up_proj.weight, layer.self_attn.q_proj.weight
    dtype = DTYPES[precision]
    if precision != "int8" and not copies(up.device, dtype):
        return Joiner(FloatProduct, dtype, None)
    place = up.new_empty(max(2 * up.numel(), 3 * query.numel()))
    return Joiner(Int8Product if precision == "int8" else FloatProduct, dtype, place)
