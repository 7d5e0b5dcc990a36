"""A sentence rewritten by the model itself for the asked style, in a lane beside those that speak."""

from dataclasses import replace
from typing import Any

from synth_consumer.engines.chattts.decode import Decoder
from synth_consumer.engines.chattts.prompts import refine_prompt
from synth_consumer.engines.chattts.runs import Run
from synth_consumer.engines.chattts.sampling import Sampling
from synth_consumer.engines.chattts.script import Sentence
from synth_consumer.engines.chattts.speaking import BadAudioError
from synth_consumer.engines.chattts.weights import Vocabulary
from synth_consumer.engines.protocol import SpeechTask

# The package's defaults for the refinement.
_MAX_TOKENS = 384
_TEMPERATURE, _TOP_P, _TOP_K, _REPETITION_PENALTY = 0.7, 0.7, 20, 1.0


class Refinement:
    """A sentence being rewritten; stands in a take's lane where its `SentenceRun` follows."""

    heard = False
    share = 0.0

    def __init__(self, chat: Any, decoder: Decoder, run: Run, sentence: Sentence) -> None:
        """Follow a run that was just given its lane."""
        self.run = run
        self._chat = chat
        self._decoder = decoder
        self._sentence = sentence

    def advance(self) -> Sentence | None:
        """The sentence with the model's own marks, once it is done; as it was where the model says nothing."""
        if self.run.end is None:
            return None
        words = self._words()
        return replace(self._sentence, text=words if words.strip() else self._sentence.text, styled=True)

    def close(self) -> None:
        """Stop before the end and free the lane."""
        self._decoder.leave(self.run)

    def _words(self) -> str:
        tokenizer = self._chat.tokenizer
        # As the package does: the styles' own marks, which come behind all words, are left out.
        kept = [token for (token,) in self.run.tokens if token < tokenizer.break_0_ids]
        words: str = tokenizer.decode([kept])[0]
        return words


def refine(chat: Any, decoder: Decoder, words: Vocabulary, sentence: Sentence, task: SpeechTask) -> Refinement:
    """Give a sentence's refinement a lane.

    Args:
        chat: loaded.
        decoder: with a free lane.
        words: the vocabulary of text.
        sentence: in words.
        task: whose seed and style it is.

    Raises:
        BadAudioError: the text is longer than a lane.
    """
    prompt = refine_prompt(chat, sentence.text, f"[oral_{task.oral}][laugh_{task.laugh}][break_{task.break_}]")
    sampling = Sampling(task.seed, _TEMPERATURE, _TOP_P, _TOP_K, _REPETITION_PENALTY)
    try:
        return Refinement(chat, decoder, decoder.join(prompt, sampling, _MAX_TOKENS, words), sentence)
    except ValueError as error:
        raise BadAudioError(str(error)) from None
