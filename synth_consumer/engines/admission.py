"""Whether a task can be spoken at all: the same three questions for every engine."""

from infra.voices import Catalogue
from schemas.codes import ErrorCode
from schemas.text import is_speakable
from synth_consumer.engines.protocol import SpeechTask, TaskRefusedError


def admit(task: SpeechTask, engine: str, catalogue: Catalogue) -> None:
    """Look the task up in the catalogue.

    Raises:
        TaskRefusedError: unknown voice, a dialect this engine does not speak, or a text without a sound.
    """
    if task.voice not in catalogue.voices or engine not in _engines_of(task.voice, engine, catalogue):
        raise TaskRefusedError(ErrorCode.UNSUPPORTED_VOICE, f"{engine} has no voice {task.voice!r}")
    if not catalogue.speaks(engine, task.dialect):
        raise TaskRefusedError(ErrorCode.UNSUPPORTED_DIALECT, f"{engine} does not speak {task.dialect!r}")
    if not is_speakable(task.text):
        raise TaskRefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, "the text holds no letter and no digit")


def _engines_of(voice: str, engine: str, catalogue: Catalogue) -> frozenset[str]:
    # The tone engine makes its sound from the voice's name alone and needs no table of its own.
    return frozenset(catalogue.voices[voice].engine_params) | ({engine} if engine == "tone" else set())
