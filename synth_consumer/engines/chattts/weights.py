"""The language model's weights, laid out for the decode loop: few large products in place of many small ones."""

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Rows that the packed layout is best at.
_PACKED_FOR = 16


class Product:
    """Rows times a matrix (out, in).

    On the CPU in float32 the matrix is laid out for oneDNN, which multiplies 4 to 16 rows twice as fast as the plain
    layout (measured on AVX-512) and gives a row the same bits at more counts of rows.
    """

    def __init__(self, weight: Tensor) -> None:
        self.width = int(weight.shape[1])
        self.like = weight[:1, :1].clone()
        packs = self.packs(weight.device, weight.dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR) if packs else None
        self._weight = None if packs else weight

    @staticmethod
    def packs(device: torch.device, dtype: torch.dtype) -> bool:
        """Whether a weight is laid out anew: a copy, that is."""
        return device.type == "cpu" and dtype == torch.float32 and bool(torch.backends.mkldnn.is_available())

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out)."""
        if self._packed is None:
            return functional.linear(rows, self._weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, "none", [], "")
        return product


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


def fuse(chat: Any, dtype: torch.dtype = torch.float32) -> Model:
    """The model of a loaded `ChatTTS.Chat`.

    Args:
        chat: loaded; not changed. Nothing of its transformer is shared.
        dtype: float32 is exact; anything else is a copy and an approximation.
    """
    with torch.no_grad():
        llama = chat.gpt.gpt
        join = _Joiner(llama.layers[0], dtype)
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
        head=Product(torch.cat([head.weight.detach() for head in embed.head_code]).to(dtype)),
        tokens=embed.num_audio_tokens,
        end=embed.num_audio_tokens - 1,
    )


def text_vocabulary(chat: Any, dtype: torch.dtype = torch.float32) -> Vocabulary:
    """The words of the text refinement. Not part of `fuse`: its head is 65 MB that few requests need."""
    with torch.no_grad():
        table = chat.embed.emb_text.weight.detach().to(dtype)
        head = Product(chat.embed.head_text.weight.detach().to(dtype))
        return Vocabulary((table,), head, tokens=table.shape[0], end=int(chat.tokenizer.eos_token))


def _layer(layer: Any, join: "_Joiner") -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm_attention=layer.input_layernorm.weight.detach().to(join.dtype, copy=True),
        qkv=join([attention.q_proj, attention.k_proj, attention.v_proj]),
        out=join([attention.o_proj]),
        norm_mlp=layer.post_attention_layernorm.weight.detach().to(join.dtype, copy=True),
        gate_up=join([mlp.gate_proj, mlp.up_proj]),
        down=join([mlp.down_proj]),
    )


class _Joiner:
    """Joins projections of the same rows into one product."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        first = layer.mlp.gate_proj.weight
        # Where products are laid out anew, one place serves all: freed ones between them would fragment the heap
        # (217 MB of the published model's).
        self._packs = Product.packs(first.device, dtype)
        self._place = torch.empty(2 * first.numel() if self._packs else 0, dtype=first.dtype)

    def __call__(self, parts: list[Any]) -> Product:
        if any(part.bias is not None for part in parts):
            raise ValueError("projections with a bias are not supported")
        weights = [part.weight.detach() for part in parts]
        if not self._packs:
            return Product(torch.cat(weights).to(self.dtype))
        rows, width = sum(len(weight) for weight in weights), weights[0].shape[1]
        joined = self._place[: rows * width].view(rows, width)
        torch.cat(weights, out=joined)
        return Product(joined)
