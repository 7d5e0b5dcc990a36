"""Random weights in the layout of the ChatTTS package: noise that its own code loads and speaks.

Small ones (14 MB) for tests; as large as the published ones (1.2 GB) for benchmarks, as cost does not depend on values.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

Size = Literal["small", "full"]
Flaw = Literal["ends-at-once", "never-ends", "nan", "silent"]

_HIDDEN = 64
_MARKS = (
    "Sasr Pasr Easr Stts Ptts Etts Sbreak Pbreak Ebreak uv_break v_break lbreak llbreak undefine laugh "
    "spk_emb empty_spk music pure"
)
_CONTROLS = [
    *(f"[{name}]" for name in _MARKS.split()),
    *(f"[break_{n}]" for n in range(8)),
    *(f"[laugh_{n}]" for n in range(3)),
    *(f"[oral_{n}]" for n in range(10)),
    *(f"[speed_{n}]" for n in range(10)),
]
_WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *"，。、,.的一是在不了有和人这中大为上个国我以要他时来用们你好今天气很欢迎致电百分之二三四五六七八九十零点",
]


def write_assets(folder: Path, flaw: Flaw | None = None, size: Size = "small", depth: tuple[int, int] = (1, 1)) -> Path:
    """Write `asset/` into the folder.

    Args:
        folder: where to.
        flaw: makes the weights misbehave in one way.
        size: of the weights; `full` is that of the published ones.
        depth: of small ones: layers of the decoder and of the vocoder.

    Returns:
        The folder.
    """
    import torch

    from synth_consumer.engines.chattts.loading import import_package

    import_package()
    asset = folder / "asset"
    (asset / "gpt").mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20_240_528)
        _write_tokenizer(asset / "tokenizer")
        overrides = _overrides(*depth) if size == "small" else {}
        (asset / "config.json").write_text(json.dumps(overrides))
        _write_weights(asset, overrides, flaw)
    return folder


def _overrides(decoder: int, vocoder: int) -> dict[str, Any]:
    import numpy as np
    import pybase16384 as b14

    small = {"hidden": 32, "n_layer": 1, "bn_dim": 16}
    words = len(_WORDS) + len(_CONTROLS)
    stat = np.concatenate([np.ones(_HIDDEN), np.zeros(_HIDDEN)]).astype(np.float16)
    return {
        "gpt": {
            "hidden_size": _HIDDEN,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_text_tokens": words,
        },
        "embed": {"hidden_size": _HIDDEN, "num_text_tokens": words},
        "decoder": {"idim": _HIDDEN // 2, "odim": _HIDDEN // 2, **small, "n_layer": decoder},
        "dvae": {
            "encoder": {"idim": 32, "odim": 64, **small},
            "decoder": {"idim": 32, "odim": 32, **small},
            "vq": {"dim": 64},
        },
        "vocos": {
            "backbone": {"init_args": {"dim": 64, "intermediate_dim": 128, "num_layers": vocoder}},
            "head": {"init_args": {"dim": 64}},
        },
        "spk_stat": b14.encode_to_string(stat.tobytes()),
    }


def _write_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizerFast

    folder.mkdir()
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(_WORDS), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab_file=str(vocabulary))
    tokenizer.add_special_tokens({"additional_special_tokens": _CONTROLS})
    tokenizer.save_pretrained(folder)


def _write_weights(asset: Path, overrides: dict[str, Any], flaw: Flaw | None) -> None:
    from dataclasses import asdict

    import torch
    from ChatTTS.config import Config
    from ChatTTS.model import DVAE, Embed
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaModel
    from vocos import Vocos
    from vocos.pretrained import instantiate_class

    from synth_consumer.engines.chattts.loading import override

    config = deepcopy(Config())
    override(config, overrides)
    embed = Embed(
        config.gpt.hidden_size, config.embed.num_audio_tokens, config.embed.num_text_tokens, config.embed.num_vq
    )
    vocos = Vocos(
        *(
            instantiate_class(args=(), init=asdict(part))
            for part in (config.vocos.feature_extractor, config.vocos.backbone, config.vocos.head)
        )
    )
    _spoil(embed, vocos, flaw)
    dvae = DVAE(
        asdict(config.dvae.decoder), asdict(config.dvae.encoder), asdict(config.dvae.vq), config.dvae.decoder.idim
    )
    decoder = DVAE(asdict(config.decoder), dim=config.decoder.idim)
    with torch.no_grad():
        # As trained, blocks say something; as initialised, a millionth.
        for block in decoder.decoder.decoder_block:
            block.weight.fill_(0.3)
    modules = {
        "Embed": embed,
        "Vocos": vocos,
        "DVAE": dvae,
        "Decoder": decoder,
    }
    for name, module in modules.items():
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, asset / f"{name}.safetensors")
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings")
    shape = {name: getattr(config.gpt, name) for name in names}
    # The package drops the llama's own table of embeddings, so it may be of any size.
    llama = LlamaModel(LlamaConfig(vocab_size=8, **shape))
    llama.save_pretrained(asset / "gpt")


def _spoil(embed: Any, vocos: Any, flaw: Flaw | None) -> None:
    import torch

    heads = [head.parametrizations.weight for head in embed.head_code]
    end = heads[0].original1.shape[0] - 1  # the last audio token ends a sentence
    with torch.no_grad():
        # Left alone, noise speaks up to seven seconds a word.
        for head in heads:
            head.original0[end] *= 1.5
        match flaw:
            case "ends-at-once":
                # One end of two opposite directions always wins, whatever the model says.
                for head in heads[:2]:
                    head.original0[end] = 1e4
                heads[1].original1[end] = -heads[0].original1[end]
            case "never-ends":
                for head in heads:
                    head.original0[end] = 0
                    head.original0[:end] = 10
            case "nan":
                heads[0].original0.fill_(torch.nan)
            case "silent":
                vocos.head.out.bias.fill_(-50)
