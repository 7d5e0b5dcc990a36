"""What is left of a take to say: its text in sentences, each put into words when its turn comes.

The number grammar is slow, so a step of the engine works on one stretch of at most `MAX_CHARS`, whoever joined with
whatever text.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.codes import ErrorCode
from schemas.text import is_speakable
from synth_consumer.engines.chattts import front
from synth_consumer.engines.chattts.front import FrontEnd
from synth_consumer.engines.chattts.fronts.marks import unreadable_share
from synth_consumer.engines.protocol import TaskRefusedError
from synth_consumer.engines.sentences import MAX_CHARS, Break, split_sentences, spoken_seconds

_PAUSE_S = {Break.SENTENCE: 0.3, Break.CLAUSE: 0.12, Break.CUT: 0.0}
# With more than this share of its letters lost a text is not the one that was asked for.
_MOST_UNREADABLE = 0.5

Normalise = Callable[[str, bool, bool, str], str]
"""The package's own front end: punctuation, and characters it misreads by ones that sound the same."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of a take. Raw, `text` is what the front end prepared; spelled, it is what the model reads."""

    text: str
    seconds: float  # rough length of its speech, at the take's speed
    pause_s: float  # behind it, when something follows
    spelled: bool = False
    styled: bool = False  # the model has rewritten it for the asked style


@dataclass(frozen=True, slots=True)
class Script:
    """A whole text, cut."""

    sentences: list[Sentence]
    complete: bool  # False: some letters are of scripts that ChatTTS cannot read, and are left out


def pace(speed: int) -> float:
    """How fast speech is at a speed of 0..9, against the even pace of 5; never taken for faster than that."""
    return float(min(1.0, 2.0 ** ((speed - 5) / 5)))


def script(text: str, dialect: str, *, speed: int, max_seconds: float, controls: bool) -> Script:
    """Cut a text into raw sentences, in time linear in its length.

    Args:
        text: canonical.
        dialect: of the catalogue.
        speed: 0..9.
        max_seconds: bound of each sentence, at that speed.
        controls: whether inline control tokens are obeyed.

    Raises:
        TaskRefusedError: no front end for the dialect, or (almost) nothing of the text can be spoken.
    """
    chosen = front.front_end(dialect)
    lost = unreadable_share(text)
    if lost > _MOST_UNREADABLE:
        message = f"ChatTTS cannot read {lost:.0%} of the text's letters; it reads Chinese characters and Latin letters"
        raise TaskRefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, message)
    prepared = chosen.prepare(front.hide_controls(text, allowed=controls))
    sentences = _cut(prepared, speed, max_seconds, spelled=False)
    if not sentences:
        raise TaskRefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, "ChatTTS knows no sound for this text")
    return Script(sentences, complete=lost == 0)


def in_words(
    raw: Sentence, chosen: FrontEnd, normalise: Normalise, *, speed: int, max_seconds: float
) -> list[Sentence]:
    """A raw sentence as the model reads it: one, more where words are longer than digits, none without a sound."""
    pieces = _cut(front.spelled(raw.text, chosen), speed, max_seconds, spelled=True)
    read = []
    for piece in pieces:
        words = normalise(front.show_controls(piece.text), True, True, chosen.language).strip()
        if is_speakable(words):
            read.append(Sentence(words, piece.seconds, piece.pause_s, spelled=True))
    if read:
        last = read[-1]
        read[-1] = Sentence(last.text, last.seconds, raw.pause_s, spelled=True)
    return read


def _cut(text: str, speed: int, max_seconds: float, *, spelled: bool) -> list[Sentence]:
    return [
        Sentence(piece.text, spoken_seconds(piece.text) / pace(speed), _PAUSE_S[piece.ends], spelled)
        for piece in split_sentences(text, max_seconds * pace(speed), MAX_CHARS)
        if is_speakable(piece.text)
    ]
