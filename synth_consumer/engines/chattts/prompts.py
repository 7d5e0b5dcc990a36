"""What the model reads before it speaks: control tokens, the voice, the sentence."""

from typing import Any

import torch
from torch import Tensor


def speech_prompt(chat: Any, text: str, speaker: str, controls: str) -> Tensor:
    """Embeddings as the package makes them for a batch of one.

    Args:
        chat: loaded.
        text: one sentence, in words.
        speaker: the voice's embedding, in the package's encoding.
        controls: "[speed_5]".

    Returns:
        (positions, hidden).
    """
    with torch.inference_mode():
        codebooks = chat.config.gpt.num_vq
        decorated = chat.speaker.decorate_code_prompts([text], controls, None, speaker)
        ids, _, is_text = chat.tokenizer.encode(decorated, codebooks, device=chat.device)
        embeddings = chat.embed(ids, is_text)
        chat.speaker.apply(embeddings, speaker, ids, chat.tokenizer.spk_emb_ids, chat.device)
        rows: Tensor = embeddings[0]
        return rows


def refine_prompt(chat: Any, text: str, controls: str) -> Tensor:
    """The same for the text refinement.

    Args:
        chat: loaded.
        text: one sentence, in words.
        controls: "[oral_2][laugh_0][break_6]".

    Returns:
        (positions, hidden).
    """
    with torch.inference_mode():
        decorated = chat.speaker.decorate_text_prompts([text], controls)
        ids, _, is_text = chat.tokenizer.encode(decorated, chat.config.gpt.num_vq, device=chat.device)
        rows: Tensor = chat.embed(ids, is_text)[0]
        return rows
