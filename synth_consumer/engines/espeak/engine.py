"""espeak-ng behind the `SpeechEngine` protocol: one lane speaks per step, about a second of it at a time."""

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infra.voices import Catalogue
from schemas.codes import ErrorCode
from schemas.text import is_speakable
from synth_consumer.engines.admission import admit
from synth_consumer.engines.espeak.library import EspeakError, Utterance
from synth_consumer.engines.espeak.link import SpeakerGoneError, SpeakerLink
from synth_consumer.engines.espeak.runs import LANGUAGES, split_runs
from synth_consumer.engines.protocol import (
    AudioProduced,
    EngineEvent,
    EngineUnavailableError,
    Pcm,
    SpeechEngine,
    SpeechTask,
    TakeFailed,
    TakeFinished,
)
from synth_consumer.engines.sentences import Break, split_sentences, spoken_seconds
from synth_consumer.engines.settings import EnginesSettings, EspeakSettings

_SAMPLE_RATE = 22_050  # what the library makes; asserted in load()
_DEFAULT_WPM = 175  # espeak-ng's own default
_MIN_WPM, _MAX_WPM = 80, 450  # the library's limits
_MAX_PIECE_S = 12.0
_GROUP_S = 4.0
# Pauses behind a piece at an even pace, in seconds. The library's own silence at both ends is cut off before.
_PAUSE_S = {Break.SENTENCE: 0.4, Break.CLAUSE: 0.18, Break.CUT: 0.02}
_PAUSE_AT_RUN_S = 0.03
_SILENT = 2e-3
_AUDIBLE_PEAK = 0.01


@dataclass(slots=True)
class _Lane:
    take_id: str
    utterances: deque[tuple[Utterance, float]]  # with the pause behind it, in seconds
    seconds: float  # rough length of the whole
    held: list[Pcm] = field(default_factory=list)
    held_samples: int = 0
    spoken_s: float = 0.0  # rough length of what was spoken
    sent_samples: int = 0
    progress: float = 0.0
    peak: float = 0.0

    def take_group(self) -> list[tuple[Utterance, float]]:
        """The next utterances that are spoken in one go: asking the speaker costs more than a short one."""
        group = [self.utterances.popleft()]
        seconds = spoken_seconds(group[0][0].text)
        while self.utterances and seconds < _GROUP_S:
            seconds += spoken_seconds(self.utterances[0][0].text)
            group.append(self.utterances.popleft())
        return group

    def take_block(self, samples: int) -> Pcm:
        """The next samples, at most so many; moves `progress` on."""
        joined = np.concatenate(self.held)
        block, rest = joined[:samples], joined[samples:]
        self.held, self.held_samples = [rest], len(rest)
        self.sent_samples += len(block)
        spoken = min(1.0, self.spoken_s / self.seconds) if self.utterances else 1.0
        self.progress = max(self.progress, spoken * self.sent_samples / (self.sent_samples + len(rest)))
        return block


class EspeakEngine:
    """See the module; `SpeechEngine` tells what each method does."""

    name = "espeak"
    sample_rate = _SAMPLE_RATE

    def __init__(self, settings: EspeakSettings, catalogue: Catalogue, lanes: int | None = None) -> None:
        self.revision = "not loaded"
        self.lanes = lanes or settings.lanes
        self._settings = settings
        self._catalogue = catalogue
        self._link: SpeakerLink | None = None
        self._turns: deque[_Lane] = deque()

    def load(self) -> None:
        """Start the speaker process, and check the catalogue's variants against it.

        Raises:
            EngineUnavailableError: the library is missing or does not start, or lacks a variant of the catalogue.
        """
        try:
            self._link = SpeakerLink(self._settings.sentence_timeout_s)
        except (EspeakError, SpeakerGoneError) as error:
            raise EngineUnavailableError(f"espeak cannot speak here: {error}") from None
        hello = self._link.hello
        if hello.sample_rate != _SAMPLE_RATE:
            raise EngineUnavailableError(f"this espeak-ng makes {hello.sample_rate} Hz, not {_SAMPLE_RATE}")
        voices = self._voices()
        for name, params in voices.items():
            if params.get("variant") not in hello.variants:
                raise EngineUnavailableError(
                    f"voice {name!r} asks for variant {params.get('variant')!r}, which espeak-ng {hello.version} "
                    "does not have; correct the voice catalogue"
                )
        recipe = json.dumps([voices, LANGUAGES, self._settings.volume], sort_keys=True)
        self.revision = f"{hello.version}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"

    def warm_up(self) -> None:
        """Speak two syllables, so that the voices' files are in memory."""
        for voice in self._voices():
            self._speak([Utterance(self._voice_of(voice, "cmn"), "好", _DEFAULT_WPM, 50, self._settings.volume)])

    def join(self, task: SpeechTask) -> None:
        """Give the task a lane."""
        admit(task, self.name, self._catalogue)
        self._turns.append(_Lane(task.take_id, self._utterances(task), spoken_seconds(task.text) or 1.0))

    def step(self) -> Sequence[EngineEvent]:
        """Speak about a second of the lane whose turn it is."""
        if not self._turns:
            return []
        lane = self._turns.popleft()
        try:
            self._fill(lane)
        except EspeakError as error:
            return [TakeFailed(lane.take_id, ErrorCode.BAD_AUDIO, str(error))]
        events: list[EngineEvent] = []
        if lane.held_samples:
            block = lane.take_block(_SAMPLE_RATE)
            events.append(AudioProduced(lane.take_id, block, lane.progress))
        if lane.utterances or lane.held_samples:
            self._turns.append(lane)
        elif lane.peak < _AUDIBLE_PEAK:
            events = [TakeFailed(lane.take_id, ErrorCode.TEXT_NOT_SPEAKABLE, "espeak-ng knows no sound for this text")]
        else:
            events.append(TakeFinished(lane.take_id))
        return events

    def cancel(self, take_id: str) -> None:
        """Free the lane."""
        self._turns = deque(lane for lane in self._turns if lane.take_id != take_id)

    def close(self) -> None:
        """End the speaker process."""
        self._turns.clear()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _fill(self, lane: _Lane) -> None:
        while lane.utterances and lane.held_samples < _SAMPLE_RATE:
            group = lane.take_group()
            for (utterance, pause_s), spoken in zip(group, self._speak([one for one, _ in group]), strict=True):
                pcm = _trimmed(spoken)
                lane.peak = max(lane.peak, float(np.abs(pcm).max(initial=0.0)))
                lane.spoken_s += spoken_seconds(utterance.text)
                pause = np.zeros(round(pause_s * _SAMPLE_RATE), np.float32)
                lane.held += [pcm, pause]
                lane.held_samples += len(pcm) + len(pause)

    def _speak(self, group: Sequence[Utterance]) -> list[Pcm]:
        if self._link is None:
            raise RuntimeError("load() comes first")
        try:
            return self._link.speak(group)
        except SpeakerGoneError:
            # Killed from outside, most likely; a text that kills the library kills only a fork of it.
            self._link.close()
            self._link = SpeakerLink(self._settings.sentence_timeout_s)
            return self._link.speak(group)

    def _utterances(self, task: SpeechTask) -> deque[tuple[Utterance, float]]:
        pace = 2.0 ** ((task.speed - 5) / 5)
        words_per_minute = round(min(max(_DEFAULT_WPM * pace, _MIN_WPM), _MAX_WPM))
        pitch = int(self._params(task.voice).get("pitch", 50))
        utterances: deque[tuple[Utterance, float]] = deque()
        for piece in split_sentences(task.text, _MAX_PIECE_S):
            runs = [run for run in split_runs(piece.text, task.dialect) if is_speakable(run[1])]
            for number, (language, text) in enumerate(runs, start=1):
                voice = self._voice_of(task.voice, language)
                pause_s = _PAUSE_S[piece.ends] if number == len(runs) else _PAUSE_AT_RUN_S
                utterance = Utterance(voice, text, words_per_minute, pitch, self._settings.volume)
                utterances.append((utterance, pause_s / pace))
        return utterances

    def _voices(self) -> dict[str, dict[str, Any]]:
        voices = self._catalogue.voices
        return {
            name: voice.engine_params[self.name] for name, voice in voices.items() if self.name in voice.engine_params
        }

    def _params(self, voice: str) -> dict[str, Any]:
        return self._catalogue.voices[voice].engine_params[self.name]

    def _voice_of(self, voice: str, language: str) -> str:
        return f"{language}+{self._params(voice)['variant']}"


def make(settings: EnginesSettings, catalogue: Catalogue, lanes: int | None) -> SpeechEngine:
    """The engine, for the registry."""
    return EspeakEngine(settings.espeak, catalogue, lanes)


def _trimmed(pcm: Pcm) -> Pcm:
    """Without the silence at both ends."""
    loud = np.flatnonzero(np.abs(pcm) > _SILENT)
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm[:0]
