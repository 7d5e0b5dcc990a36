"""ChatTTS behind the `SpeechEngine` protocol: lanes take turns, some tokens each; sound comes sentence by sentence."""

import importlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from infra.voices import Catalogue
from schemas.codes import ErrorCode
from schemas.text import is_speakable
from synth_consumer.engines.admission import admit
from synth_consumer.engines.chattts import front
from synth_consumer.engines.chattts.assets import find_assets
from synth_consumer.engines.chattts.loading import load_chat
from synth_consumer.engines.chattts.speaking import BadAudioError, SentenceRun, Spoken, refined
from synth_consumer.engines.protocol import (
    AudioProduced,
    EngineEvent,
    Pcm,
    SpeechEngine,
    SpeechTask,
    TakeFailed,
    TakeFinished,
    TaskRefusedError,
)
from synth_consumer.engines.sentences import Break, split_sentences, spoken_seconds
from synth_consumer.engines.settings import ChatttsSettings, EnginesSettings

_SAMPLE_RATE = 24_000
_PAUSE_S = {Break.SENTENCE: 0.3, Break.CLAUSE: 0.12, Break.CUT: 0.0}
# A sentence that fails is tried again with the next seed, so often in all; the same seeds each time.
_SEEDS = 3


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    seconds: float
    pause_s: float


@dataclass(slots=True)
class _Lane:
    task: SpeechTask
    sentences: deque[_Sentence]
    total_s: float
    left_s: float
    run: SentenceRun | None = None
    tries: int = 0
    truncated: bool = False


class ChatttsEngine:
    """See the module; `SpeechEngine` tells what each method does."""

    name = "chattts"
    sample_rate = _SAMPLE_RATE

    def __init__(self, settings: ChatttsSettings, catalogue: Catalogue, lanes: int | None = None) -> None:
        self.revision = "not loaded"
        self.lanes = lanes or settings.lanes
        self._settings = settings
        self._catalogue = catalogue
        self._chat: Any = None
        self._speakers: dict[str, str] = {}
        self._turns: deque[_Lane] = deque()

    def load(self) -> None:
        """Check the weights' files, import the package, load both.

        Raises:
            EngineUnavailableError: with what is missing and the command that brings it.
        """
        assets = find_assets(self._settings.assets)
        self._chat = load_chat(assets, self._settings.device, self._settings.threads)
        self._speakers = {
            name: _speaker(self._chat, voice.engine_params[self.name])
            for name, voice in self._catalogue.voices.items()
            if self.name in voice.engine_params
        }
        self.revision = f"{version('chattts')}-{assets.digest}"

    def warm_up(self) -> None:
        """Speak one word; the first sentence pays for the number grammar and the package's compiled normaliser."""
        voice = next(iter(self._speakers))
        for language, dialect, text in (("zh", "mandarin", "1。"), ("en", "english", "1.")):
            self.join(SpeechTask("warm-up", text, language, dialect, voice, seed=1))
            while self._turns:
                self.step()

    def join(self, task: SpeechTask) -> None:
        """Give the task a lane."""
        admit(task, self.name, self._catalogue)
        sentences = deque(self._sentences(task))
        if not sentences:
            raise TaskRefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, "ChatTTS knows no sound for this text")
        total_s = sum(sentence.seconds for sentence in sentences)
        self._turns.append(_Lane(task, sentences, total_s, total_s))

    def step(self) -> Sequence[EngineEvent]:
        """Some tokens for the lane whose turn it is."""
        if not self._turns:
            return []
        lane = self._turns.popleft()
        try:
            spoken = self._advance(lane)
        except BadAudioError as error:
            return self._try_again(lane, str(error))
        except Exception as error:
            if not _out_of_memory(error):
                raise
            lane.run = None
            importlib.import_module("torch").cuda.empty_cache()
            return [TakeFailed(lane.task.take_id, ErrorCode.GPU_OUT_OF_MEMORY, "no memory left on the device")]
        return self._events(lane, spoken)

    def cancel(self, take_id: str) -> None:
        """Free the lane and its cache."""
        for lane in self._turns:
            if lane.task.take_id == take_id and lane.run is not None:
                lane.run.close()
        self._turns = deque(lane for lane in self._turns if lane.task.take_id != take_id)

    def close(self) -> None:
        """Let go of the lanes and the weights."""
        for lane in self._turns:
            if lane.run is not None:
                lane.run.close()
        self._turns.clear()
        self._chat = None

    def _advance(self, lane: _Lane) -> Spoken | None:
        if lane.run is None:
            sentence, task = lane.sentences[0], lane.task
            text = refined(self._chat, sentence.text, task) if task.oral or task.laugh or task.break_ else sentence.text
            seed = task.seed + lane.tries
            lane.run = SentenceRun(self._chat, text, task, self._speakers[task.voice], sentence.seconds, seed)
        return lane.run.advance()

    def _try_again(self, lane: _Lane, reason: str) -> Sequence[EngineEvent]:
        lane.run = None
        lane.tries += 1
        if lane.tries >= _SEEDS:
            return [TakeFailed(lane.task.take_id, ErrorCode.BAD_AUDIO, f"{reason}, with {_SEEDS} seeds")]
        self._turns.append(lane)
        return []

    def _events(self, lane: _Lane, spoken: Spoken | None) -> Sequence[EngineEvent]:
        if spoken is None:
            self._turns.append(lane)
            return []
        sentence = lane.sentences.popleft()
        lane.run, lane.tries = None, 0
        lane.truncated |= spoken.truncated
        before = 1 - lane.left_s / lane.total_s
        lane.left_s = sum(rest.seconds for rest in lane.sentences)
        after = 1 - lane.left_s / lane.total_s
        pause = np.zeros(round(sentence.pause_s * _SAMPLE_RATE), np.float32)
        events = _blocks(lane.task.take_id, np.concatenate([spoken.pcm, pause]), before, after)
        if lane.sentences:
            self._turns.append(lane)
            return events
        return [*events, TakeFinished(lane.task.take_id, lane.truncated)]

    def _sentences(self, task: SpeechTask) -> list[_Sentence]:
        language: front.Language = "zh" if task.language == "zh" else "en"
        words = front.spell_out(front.escape_controls(task.text), language)
        sentences = []
        for piece in split_sentences(words, self._settings.max_sentence_s):
            # The package's own front end: punctuation, and characters it misreads by ones that sound the same.
            text = self._chat.normalizer(piece.text, True, True, language).strip()
            if is_speakable(text):
                sentences.append(_Sentence(text, spoken_seconds(text), _PAUSE_S[piece.ends]))
        return sentences


def make(settings: EnginesSettings, catalogue: Catalogue, lanes: int | None) -> SpeechEngine:
    """The engine, for the registry."""
    return ChatttsEngine(settings.chattts, catalogue, lanes)


def _speaker(chat: Any, params: dict[str, Any]) -> str:
    """The voice's embedding, as the package encodes it: written out in the catalogue, or drawn from its seed."""
    if written := params.get("speaker"):
        return str(written)
    torch = importlib.import_module("torch")
    speaker = chat.speaker
    # Drawn on the CPU, so that a voice is the same on every device.
    generator = torch.Generator().manual_seed(int(params["speaker_seed"]))
    drawn = torch.randn(speaker.dim, generator=generator, dtype=torch.float32)
    embedding: str = speaker._encode(drawn * speaker.std.float().cpu() + speaker.mean.float().cpu())
    return embedding


def _blocks(take_id: str, pcm: Pcm, before: float, after: float) -> list[EngineEvent]:
    blocks = [pcm[at : at + _SAMPLE_RATE] for at in range(0, len(pcm), _SAMPLE_RATE)]
    share = (after - before) / len(blocks)
    return [AudioProduced(take_id, block, min(1.0, before + share * n)) for n, block in enumerate(blocks, start=1)]


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, importlib.import_module("torch").OutOfMemoryError)
