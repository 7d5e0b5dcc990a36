"""Text cut into pieces that an engine can speak in one breath. Pure.

No character is lost or added: the pieces joined are the text, white space at the cuts aside.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

# Seconds of speech by kind of character, at an even pace: about 4.5 syllables of Chinese or 13 letters of English
# a second; a digit is read as a word.
_WIDE_S = 0.22
_LETTER_S = 0.075
_DIGIT_S = 0.3
# Letters read one by one: "NBA", "HTTPS".
_SPELLED = re.compile(r"[A-Z]{2,}(?![a-z])")
# Marks take no time, but an engine has to read them too.
MAX_CHARS = 400

# Marks that end a sentence or a clause, unless digits stand on both sides (3.5, 1,000, 10:30), with the brackets and
# quotes that close behind them. A full stop or comma inside a word ("e.g", "a,b") ends nothing.
_CLOSERS = "[\"'”’」』）)】》]*"
_SENTENCE_END = re.compile(rf"(?:[。！？!?；;…\n]+|\.+(?=[\s\"'”’)」』）]|$)){_CLOSERS}")
_CLAUSE_END = re.compile(rf"(?:[，、：—]|[,:](?!\d)|(?<!\d)[,:]|\s-\s){_CLOSERS}")


class Break(Enum):
    """What stands behind a piece, which decides the pause."""

    SENTENCE = "sentence"
    CLAUSE = "clause"
    CUT = "cut"  # no mark to stop at: the piece was only too long


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text and the break behind it."""

    text: str
    ends: Break


def spoken_seconds(text: str) -> float:
    """Rough length of the text's speech at an even pace, in seconds; punctuation and spaces count nothing."""
    extra = sum(len(run[0]) for run in _SPELLED.finditer(text)) * (_DIGIT_S - _LETTER_S)
    return sum(map(_seconds, text)) + extra


def _seconds(character: str) -> float:
    category = unicodedata.category(character)
    if category[0] == "N":
        return _DIGIT_S
    if category in {"Lo", "So"}:
        return _WIDE_S
    if category[0] == "L":
        return _LETTER_S
    return _DIGIT_S if category == "Sc" or character in "%°" else 0.0


def split_sentences(text: str, max_seconds: float, max_chars: int = MAX_CHARS) -> list[Piece]:
    """Cut at sentence ends; a sentence that is too long at its clauses; a clause that is too long between words.

    Args:
        text: any text.
        max_seconds: bound of `spoken_seconds` of each piece; a single character is never cut.
        max_chars: bound of the characters of each piece.
    """
    bound = _Bound(max_seconds, max_chars)
    pieces: list[Piece] = []
    for sentence in _parts(text, _SENTENCE_END):
        if bound.holds(sentence):
            pieces.append(Piece(sentence, Break.SENTENCE))
        else:
            pieces += _clauses(sentence, bound)
    return pieces


@dataclass(frozen=True, slots=True)
class _Bound:
    seconds: float
    chars: int

    def holds(self, text: str) -> bool:
        return len(text) <= self.chars and spoken_seconds(text) <= self.seconds


def _parts(text: str, end: re.Pattern[str]) -> list[str]:
    cuts = [0, *(match.end() for match in end.finditer(text)), len(text)]
    return [part for a, b in pairwise(cuts) if (part := text[a:b].strip())]


def _clauses(sentence: str, bound: _Bound) -> list[Piece]:
    pieces: list[Piece] = []
    held = ""
    for part in _spaced_parts(sentence):
        if held and not bound.holds(held + part):
            pieces.append(Piece(held.strip(), Break.CLAUSE))
            held = ""
        if not bound.holds(part):
            *cut, held = _cut(part, bound)
            pieces += [Piece(piece, Break.CUT) for piece in cut]
        else:
            held += part
    return [*pieces, Piece(held.strip(), Break.SENTENCE)]


def _spaced_parts(sentence: str) -> list[str]:
    cuts = [0, *(match.end() for match in _CLAUSE_END.finditer(sentence)), len(sentence)]
    return [part for a, b in pairwise(cuts) if (part := sentence[a:b]).strip()]


def _cut(text: str, bound: _Bound) -> list[str]:
    """Between words where there are any. Takes time linear in the text, as what is weighed is bounded."""
    pieces: list[str] = []
    at = 0
    while not bound.holds(text[at : at + bound.chars + 1]):
        end = at + _fitting(text[at : at + bound.chars + 1], bound)
        pieces.append(text[at:end].strip())
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return [*pieces, text[at:]]


def _fitting(text: str, bound: _Bound) -> int:
    """Characters of the next piece: up to the last space within the bound, else as many as fit, at least 1."""
    seconds, space = 0.0, 0
    for end, character in enumerate(text):
        spelled = character.isupper() and (text[end - 1 : end].isupper() or text[end + 1 : end + 2].isupper())
        seconds += max(_seconds(character), _DIGIT_S if spelled else 0.0)
        if end and (seconds > bound.seconds or end >= bound.chars):
            return space or end
        if character.isspace() and end:
            space = end
    return len(text)
