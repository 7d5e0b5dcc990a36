"""One sentence: its run in a lane, and the sound that comes of it while it runs.

When sound comes depends on the count of tokens alone, never on time or on other lanes, so the same sentence is the
same bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from synth_consumer.engines.chattts.decode import Decoder
from synth_consumer.engines.chattts.prompts import speech_prompt
from synth_consumer.engines.chattts.runs import End, Run
from synth_consumer.engines.chattts.sampling import Sampling
from synth_consumer.engines.chattts.vocoding import EarlySound, Vocoder
from synth_consumer.engines.protocol import Pcm, SpeechTask

# One token is 512 samples at 24 kHz.
TOKENS_PER_SECOND = 24_000 / 512
# The package's default, about 44 s.
_MAX_TOKENS = 2_048
# A sentence that takes this many times its rough length, plus some seconds, does not end by itself any more.
_RUNAWAY_FACTOR, _RUNAWAY_EXTRA_S = 4.0, 5.0
# One that ends before this share of its rough length left most of its text out.
_FEWEST_SHARE = 0.15
_MIN_TEMPERATURE = 0.01
_AUDIBLE_PEAK = 1e-3
# Tokens until the first piece: the vocoder's look-ahead of 53 and 8 that are heard (0.17 s, where the worker tells the
# first 0.15 s at once); then a second each, as it tells no less later. On two CPU cores a token of pieces of 24, 48, 96
# takes 1.6, 1.0 and 0.9 ms to vocode.
_FIRST_PIECE, _PIECE = 61, 48


class BadAudioError(Exception):
    """The sentence made no sound worth keeping; another seed may."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of a sentence since the last look."""

    pcm: Pcm
    done: bool
    truncated: bool = False


class SentenceRun:
    """A sentence being spoken."""

    def __init__(
        self, chat: Any, decoder: Decoder, run: Run, expected_tokens: float, early: bool = False, runaway: bool = False
    ) -> None:
        """Follow a run that was just given its lane.

        Args:
            chat: loaded, for its vocoder.
            decoder: that holds the run.
            run: nothing of it has been taken yet.
            expected_tokens: for `share`; a run that ends by itself much earlier has gone astray.
            early: tell the first tokens before their look-ahead is there.
            runaway: a run that reaches its most tokens has gone astray; else its text was only too long.
        """
        self.run = run
        self.heard = False
        self._runaway = runaway
        self._decoder = decoder
        self._expected = max(1.0, expected_tokens)
        self._fewest = round(expected_tokens * _FEWEST_SHARE)
        self._vocoder = Vocoder(chat)
        self._early = EarlySound(chat) if early else None
        self._fed = 0  # tokens
        self._quiet: list[Pcm] = []

    @property
    def share(self) -> float:
        """How much of the sentence is believed spoken, 0..1, by the tokens so far."""
        return min(1.0, len(self.run.tokens) / self._expected)

    def advance(self) -> Spoken | None:
        """The sound that the last step made ready, if any.

        Raises:
            BadAudioError: it ended at once or far too early, or what came is silence or not finite.
        """
        end = self.run.end
        if end is End.NOT_FINITE:
            raise BadAudioError("the model's output is not finite")
        if end and not self.run.tokens:
            raise BadAudioError("the model ended the sentence before its first sound")
        if end is End.NATURAL and len(self.run.tokens) < self._fewest:
            raise BadAudioError(f"the model ended the sentence after {len(self.run.tokens)} tokens")
        if end is End.LIMIT and self._runaway:
            raise BadAudioError("the model did not end the sentence")
        pieces = []
        if self._early is not None and not end and self.run.untaken >= self._early.tokens and not self._fed:
            pieces += self._early.first(self.run.waiting())
        if end or self.run.untaken >= (_PIECE if self._fed else _FIRST_PIECE):
            pieces.append(self._piece(end is not None))
        pcm = self._checked(pieces, end is not None)
        if end:
            return Spoken(pcm, True, truncated=end is End.LIMIT)
        return Spoken(pcm, False) if len(pcm) else None

    def close(self) -> None:
        """Stop before the end and free the lane."""
        self._decoder.leave(self.run)

    def _piece(self, last: bool) -> Pcm:
        hiddens = self.run.waiting()
        pcm = self._vocoder.feed(hiddens, last)
        # Only now: where memory ran out, the same piece is made again.
        self.run.take()
        self._fed += hiddens.shape[0]
        return self._early.rest(pcm) if self._early is not None else pcm

    def _checked(self, pieces: list[Pcm], done: bool) -> Pcm:
        pcm: Pcm = np.concatenate([*self._quiet, *pieces, np.zeros(0, np.float32)])
        if not np.isfinite(pcm).all():
            raise BadAudioError("the vocoder's output is not finite")
        if not self.heard and float(np.abs(pcm).max(initial=0.0)) < _AUDIBLE_PEAK:
            # Told only once something is heard, so that a silent sentence can be tried again.
            if done:
                raise BadAudioError("the sentence is silent")
            self._quiet = [pcm]
            return np.zeros(0, np.float32)
        self._quiet, self.heard = [], True
        return np.clip(pcm, -1.0, 1.0)


def begin(
    chat: Any, decoder: Decoder, text: str, task: SpeechTask, speaker: str, seconds: float, seed: int, early: bool
) -> SentenceRun:
    """Give a sentence a lane.

    Args:
        chat: loaded.
        decoder: with a free lane.
        text: one sentence, in words.
        task: its manner.
        speaker: the voice's embedding, in the package's encoding.
        seconds: rough length of its speech.
        seed: of this try.
        early: see `SentenceRun`.

    Raises:
        BadAudioError: the text is longer than a lane.
    """
    astray = round((seconds * _RUNAWAY_FACTOR + _RUNAWAY_EXTRA_S) * TOKENS_PER_SECOND)
    sampling = Sampling(seed, max(task.temperature, _MIN_TEMPERATURE), task.top_p, task.top_k)
    prompt = speech_prompt(chat, text, speaker, f"[speed_{task.speed}]")
    try:
        run = decoder.join(prompt, sampling, min(_MAX_TOKENS, astray))
    except ValueError as error:
        raise BadAudioError(str(error)) from None
    return SentenceRun(chat, decoder, run, seconds * TOKENS_PER_SECOND, early, run.max_tokens == astray)
