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
    return sum(map(_seconds, text))


def _seconds(character: str) -> float:
    category = unicodedata.category(character)
    if category[0] == "N":
        return _DIGIT_S
    if category in {"Lo", "So"}:
        return _WIDE_S
    if category[0] == "L":
        return _LETTER_S
    return _DIGIT_S if category == "Sc" or character in "%°" else 0.0


def split_sentences(text: str, max_seconds: float) -> list[Piece]:
    """Cut at sentence ends; a sentence that is too long at its clauses; a clause that is too long between words.

    Args:
        text: any text.
        max_seconds: bound of `spoken_seconds` of each piece; a single character is never cut.
    """
    pieces: list[Piece] = []
    for sentence in _parts(text, _SENTENCE_END):
        if spoken_seconds(sentence) <= max_seconds:
            pieces.append(Piece(sentence, Break.SENTENCE))
        else:
            pieces += _clauses(sentence, max_seconds)
    return pieces


def _parts(text: str, end: re.Pattern[str]) -> list[str]:
    cuts = [0, *(match.end() for match in end.finditer(text)), len(text)]
    return [part for a, b in pairwise(cuts) if (part := text[a:b].strip())]


def _clauses(sentence: str, max_seconds: float) -> list[Piece]:
    pieces: list[Piece] = []
    held, held_s = "", 0.0
    for part in _spaced_parts(sentence):
        part_s = spoken_seconds(part)
        if held and held_s + part_s > max_seconds:
            pieces.append(Piece(held.strip(), Break.CLAUSE))
            held, held_s = "", 0.0
        if part_s > max_seconds:
            *cut, rest = _cut(part, max_seconds)
            pieces += [Piece(piece, Break.CUT) for piece in cut]
            held, held_s = rest, spoken_seconds(rest)
        else:
            held, held_s = held + part, held_s + part_s
    return [*pieces, Piece(held.strip(), Break.SENTENCE)]


def _spaced_parts(sentence: str) -> list[str]:
    cuts = [0, *(match.end() for match in _CLAUSE_END.finditer(sentence)), len(sentence)]
    return [part for a, b in pairwise(cuts) if (part := sentence[a:b]).strip()]


def _cut(text: str, max_seconds: float) -> list[str]:
    pieces: list[str] = []
    while True:
        end, seconds, space = 0, 0.0, 0
        for end, character in enumerate(text):
            seconds += _seconds(character)
            if seconds > max_seconds and end > 0:
                break
            if character.isspace() and end > 0:
                space = end
        else:
            return [*pieces, text]
        end = space or end
        pieces.append(text[:end].strip())
        text = text[end:].lstrip()
