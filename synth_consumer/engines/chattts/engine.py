"""ChatTTS behind the `SpeechEngine` protocol: a lane for each take, a token of all per step, sound while it runs."""

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from infra.voices import Catalogue
from schemas.codes import ErrorCode
from synth_consumer.engines.admission import admit
from synth_consumer.engines.chattts import front, voices
from synth_consumer.engines.chattts.assets import find_assets
from synth_consumer.engines.chattts.held import SAMPLE_RATE, HeldTake
from synth_consumer.engines.chattts.loading import load_chat
from synth_consumer.engines.chattts.memory import MOST_LANES
from synth_consumer.engines.chattts.pressure import LaneCap, out_of_memory
from synth_consumer.engines.chattts.script import Script, Sentence, in_words, script
from synth_consumer.engines.protocol import (
    SEEDS_PER_TAKE,
    EngineEvent,
    LanesChanged,
    SpeechEngine,
    SpeechTask,
    TakeFailed,
    TakeFinished,
    TaskRefusedError,
)
from synth_consumer.engines.settings import ChatttsSettings, EnginesSettings

if TYPE_CHECKING:
    from synth_consumer.engines.chattts.decode import Decoder
    from synth_consumer.engines.chattts.weights import Vocabulary

_NO_MEMORY = (ErrorCode.GPU_OUT_OF_MEMORY, "no memory left on the device")


class ChatttsEngine:
    """See the module; `SpeechEngine` tells what each method does."""

    name = "chattts"
    sample_rate = SAMPLE_RATE

    def __init__(self, settings: ChatttsSettings, catalogue: Catalogue, lanes: int | None = None) -> None:
        self.revision = "not loaded"
        self.lanes = lanes or settings.lanes or MOST_LANES
        self._settings = settings
        self._catalogue = catalogue
        self._chat: Any = None
        self._speakers: dict[str, str] = {}
        self._decoder: Decoder | None = None
        self._words: Vocabulary | None = None  # of the refinement, when the first take asks for it
        self._held: list[HeldTake] = []  # oldest first
        self._cap = LaneCap(self.lanes)
        self._told_cap = self.lanes

    def load(self) -> None:
        """Check the weights' files, import the package, load both.

        Raises:
            EngineUnavailableError: with what is missing and the command that brings it.
        """
        assets = find_assets(self._settings.assets)
        self._chat = load_chat(assets, self._settings.device, self._settings.threads)
        device = importlib.import_module("synth_consumer.engines.chattts.device")
        self._decoder = decoder = device.make_decoder(self._chat, self._settings.precision, self.lanes)
        self.lanes = decoder.lanes
        self._cap, self._told_cap = LaneCap(self.lanes), self.lanes
        self._speakers = voices.speakers(self._chat, self._catalogue, self.name)
        self.revision = "-".join([version("chattts"), assets.digest, *self._traits()])

    def _traits(self) -> list[str]:
        """What else than the weights changes the sound of a task."""
        traits = [voices.digest(self._chat, self._speakers)]
        if self._settings.allow_control_tokens:
            traits.append("controls")
        if self._settings.precision != "exact":
            traits.append(self._settings.precision)
        return traits

    def warm_up(self) -> None:
        """Record the steps, speak a word: what comes first pays for the number grammar and the compiled normaliser."""
        if self._decoder is not None and not self._held:
            self._decoder.prepare()
        voice = next(iter(self._speakers))
        # The package compiles another function for texts with controls.
        control = "[uv_break]" if self._settings.allow_control_tokens else ""
        for language, dialect, text in (("zh", "mandarin", f"1{control}。"), ("en", "english", "1.")):
            self.join(SpeechTask("warm-up", text, language, dialect, voice, seed=1))
            while self._held:
                self.step()

    def join(self, task: SpeechTask) -> None:
        """Give the task a lane."""
        admit(task, self.name, self._catalogue)
        try:
            said = self._script(task)
        except TaskRefusedError:
            raise
        except Exception as error:
            # A defect of the front end is this text's misfortune, not that of the other lanes.
            raise TaskRefusedError(ErrorCode.INTERNAL, f"the text front end failed: {type(error).__name__}") from error
        self._held.append(HeldTake.of(task, said))

    def step(self) -> Sequence[EngineEvent]:
        """One token for every lane; a stretch of a prompt for one that begins; the sound that this made ready."""
        events = self._spell_next()
        self._resume()
        for lane in [lane for lane in self._going if lane.run is None and lane.spelled]:
            events += self._guarded(lane, self._begin)
        for lane in [lane for lane in self._going if lane.due]:
            events += self._guarded(lane, self._speak)
        events += self._decoded()
        if self._cap.now != self._told_cap:
            self._told_cap = self._cap.now
            events.append(LanesChanged(self._cap.now))
        return events

    @property
    def _going(self) -> list[HeldTake]:
        return [lane for lane in self._held if not lane.held_back]

    def _resume(self) -> None:
        waiting = [lane for lane in self._held if lane.held_back]
        going = len(self._held) - len(waiting)
        for lane in waiting[: max(0, self._cap.now - going)]:
            lane.held_back = False
        for lane in self._going[self._cap.now :]:
            lane.held_back = True

    def _decoded(self) -> list[EngineEvent]:
        if not self._decoder or self._decoder.idle:
            return []
        waiting = [lane.run.run for lane in self._held if lane.run is not None and (lane.held_back or lane.due)]
        try:
            advanced = self._decoder.step(waiting)
        except Exception as error:
            if not out_of_memory(error):
                raise
            advanced = None
        if advanced is None:
            return self._squeezed()
        events: list[EngineEvent] = []
        for lane in [lane for lane in self._held if lane.run is not None and lane.run.run in advanced]:
            lane.due = True
            events += self._guarded(lane, self._speak)
        return events

    def _squeezed(self) -> list[EngineEvent]:
        """Memory ran out: the newest half waits in its lanes; the one that was alone ends."""
        going = self._going
        left = self._cap.halve(len(going))
        events = [] if left else self._end(going[0], *_NO_MEMORY)
        for lane in going[left:] if left else []:
            lane.held_back = True
        importlib.import_module("torch").cuda.empty_cache()
        return events

    def cancel(self, take_id: str) -> None:
        """Free the lane and its cache."""
        for lane in [lane for lane in self._held if lane.task.take_id == take_id]:
            self._let_go(lane)

    def close(self) -> None:
        """Let go of the lanes and the weights."""
        for lane in list(self._held):
            self._let_go(lane)
        self._decoder = self._words = self._chat = None

    def _guarded(self, lane: HeldTake, work: Callable[[HeldTake], list[EngineEvent]]) -> list[EngineEvent]:
        """Do the work; what goes wrong with this lane ends this lane's try only."""
        speaking = importlib.import_module("synth_consumer.engines.chattts.speaking")
        try:
            return work(lane)
        except speaking.BadAudioError as error:
            return self._try_again(lane, str(error))
        except Exception as error:
            if not out_of_memory(error):
                raise
        # Not in the handler: the error's frames hold memory.
        return self._squeezed() if self._going else []

    def _begin(self, lane: HeldTake) -> list[EngineEvent]:
        speaking = importlib.import_module("synth_consumer.engines.chattts.speaking")
        sentence, task = lane.sentences[0], lane.task
        if (task.oral or task.laugh or task.break_) and not sentence.styled:
            refining = importlib.import_module("synth_consumer.engines.chattts.refining")
            lane.run = refining.refine(self._chat, self._decoder, self._text_vocabulary(), sentence, task)
            return []
        lane.run = speaking.begin(
            self._chat,
            self._decoder,
            sentence.text,
            task,
            self._speakers[task.voice],
            sentence.seconds,
            task.seed + lane.tries,
            self._settings.early_sound,
        )
        return []

    def _speak(self, lane: HeldTake) -> list[EngineEvent]:
        assert lane.run is not None
        spoken = lane.run.advance()
        lane.due = False
        if isinstance(spoken, Sentence):
            # Kept for every further try.
            lane.sentences[0], lane.run = spoken, None
            return []
        if spoken is None:
            return []
        events = lane.told(spoken)
        if not lane.sentences:
            self._held.remove(lane)
            self._cap.ended_well()
        return events

    def _try_again(self, lane: HeldTake, reason: str) -> list[EngineEvent]:
        if lane.run is not None and lane.run.heard:
            # Sound that went out cannot be taken back.
            return self._end(lane, ErrorCode.BAD_AUDIO, f"{reason}, after some of it was told")
        lane.stop()
        lane.tries += 1
        if lane.tries >= SEEDS_PER_TAKE:
            return self._end(lane, ErrorCode.BAD_AUDIO, f"{reason}, with {SEEDS_PER_TAKE} seeds")
        return []

    def _end(self, lane: HeldTake, code: ErrorCode, message: str) -> list[EngineEvent]:
        self._let_go(lane)
        return [TakeFailed(lane.task.take_id, code, message)]

    def _let_go(self, lane: HeldTake) -> None:
        lane.stop()
        self._held.remove(lane)

    def _text_vocabulary(self) -> "Vocabulary":
        if self._words is None:
            weights = importlib.import_module("synth_consumer.engines.chattts.weights")
            words: Vocabulary = weights.text_vocabulary(self._chat, self._settings.precision)
            self._words = words
        return self._words

    def _script(self, task: SpeechTask) -> Script:
        bound, controls = self._settings.max_sentence_s, self._settings.allow_control_tokens
        return script(task.text, task.dialect, speed=task.speed, max_seconds=bound, controls=controls)

    def _spell_next(self) -> list[EngineEvent]:
        """Put one raw sentence into words, so that a step is short whatever joined: of the lane that waits longest."""
        waiting = [lane for lane in self._held if lane.run is None and not lane.spelled]
        if not waiting:
            return []
        lane = waiting[0]
        try:
            words = self._in_words(lane)
        except Exception as error:
            return self._end(lane, ErrorCode.INTERNAL, f"the text front end failed: {type(error).__name__}")
        lane.sentences.popleft()
        lane.sentences.extendleft(reversed(words))
        if lane.sentences:
            return []
        if lane.progress == 0.0:
            return self._end(lane, ErrorCode.TEXT_NOT_SPEAKABLE, "ChatTTS knows no sound for this text")
        self._held.remove(lane)
        return [TakeFinished(lane.task.take_id, lane.truncated)]

    def _in_words(self, lane: HeldTake) -> list[Sentence]:
        chosen, bound = front.front_end(lane.task.dialect), self._settings.max_sentence_s
        return in_words(lane.sentences[0], chosen, self._chat.normalizer, speed=lane.task.speed, max_seconds=bound)


def make(settings: EnginesSettings, catalogue: Catalogue, lanes: int | None) -> SpeechEngine:
    """The engine, for the registry."""
    return ChatttsEngine(settings.chattts, catalogue, lanes)
