"""One sentence through the package, some tokens at a time.

`Chat.infer` is not used: it deletes quiet samples from the middle, hides truncation, and leaks the voice through its
shared parameters. Its own two halves are called instead. Sentences of several lanes may be interleaved: the package
keeps a sentence's state in its generator and reseeds its random numbers at every token.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from synth_consumer.engines.protocol import Pcm, SpeechTask

# One token is 512 samples at 24 kHz.
TOKENS_PER_SECOND = 24_000 / 512
# Tokens decoded per step: with the published weights 0.6 s on two CPU cores, 0.1 s on a GPU.
_TOKENS_A_STEP = 8
# The package's default, about 44 s; the positions of the model end at 4,096.
_MAX_TOKENS = 2048
# A sentence that takes this many times its rough length, plus some seconds, does not end by itself any more.
_RUNAWAY_FACTOR, _RUNAWAY_EXTRA_S = 4.0, 5.0
_MIN_TEMPERATURE = 0.01
_AUDIBLE_PEAK = 1e-3


class BadAudioError(Exception):
    """The sentence made no sound worth keeping; another seed may."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A whole sentence."""

    pcm: Pcm
    truncated: bool


class SentenceRun:
    """A sentence being spoken."""

    def __init__(self, chat: Any, text: str, task: SpeechTask, speaker: str, seconds: float, seed: int) -> None:
        self._chat = chat
        self._max_tokens = min(_MAX_TOKENS, round((seconds * _RUNAWAY_FACTOR + _RUNAWAY_EXTRA_S) * TOKENS_PER_SECOND))
        # A fresh object each time: the package writes into it.
        params = chat.InferCodeParams(
            prompt=f"[speed_{task.speed}]",
            spk_emb=speaker,
            temperature=max(task.temperature, _MIN_TEMPERATURE),
            top_P=task.top_p,
            top_K=task.top_k or None,
            max_new_token=self._max_tokens,
            stream_batch=_TOKENS_A_STEP,
            ensure_non_empty=False,  # it would recurse without a bound
            manual_seed=seed,
            show_tqdm=False,
        )
        self._tokens: Iterator[Any] = chat._infer_code([text], True, chat.device, True, params)
        self._last: Any = None

    def advance(self) -> Spoken | None:
        """Decode some more tokens.

        Returns:
            The sentence's sound when that was the end of it.

        Raises:
            BadAudioError: it ended at once, or what came is silence or not finite.
        """
        try:
            self._last = next(self._tokens)
        except StopIteration:
            return self._spoken()
        except RuntimeError as error:
            # torch.multinomial's complaint about NaN; anything else, out of memory too, is for the caller.
            if "probability tensor" in str(error):
                raise BadAudioError("the model's output is not finite") from None
            raise
        return None

    def close(self) -> None:
        """Stop before the end and free the sentence's cache."""
        with contextlib.suppress(AttributeError):
            self._tokens.close()  # type: ignore[attr-defined]
        self._last = None

    def _spoken(self) -> Spoken:
        count = 0 if self._last is None else self._last.ids[0].shape[0]
        if count == 0:
            raise BadAudioError("the model ended the sentence before its first sound")
        wave = np.asarray(self._chat._decode_to_wavs(self._last.hiddens, True), np.float32)[0]
        if not np.isfinite(wave).all():
            raise BadAudioError("the vocoder's output is not finite")
        if float(np.abs(wave).max(initial=0.0)) < _AUDIBLE_PEAK:
            raise BadAudioError("the sentence is silent")
        return Spoken(np.clip(wave, -1.0, 1.0), truncated=count >= self._max_tokens)


def refined(chat: Any, text: str, task: SpeechTask) -> str:
    """The sentence with the model's own marks for the asked style: oral words, laughter, breaks.

    Blocks for up to 384 tokens. Falls back to the text as it is when the model says nothing.
    """
    prompt = f"[oral_{task.oral}][laugh_{task.laugh}][break_{task.break_}]"
    params = chat.RefineTextParams(prompt=prompt, manual_seed=task.seed, ensure_non_empty=False, show_tqdm=False)
    try:
        outcome = chat._refine_text([text], chat.device, params)
    except StopIteration:
        # The package calls next() on a generator that ended at once.
        return text
    tokens = [ids[ids.less(chat.tokenizer.break_0_ids)] for ids in outcome.ids]
    words: str = chat.tokenizer.decode(tokens)[0]
    return words if words.strip() else text
