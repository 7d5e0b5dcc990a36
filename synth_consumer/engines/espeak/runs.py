"""Stretches of one script: an English name inside a Chinese sentence is read by the English voice. Pure."""

import re
from itertools import pairwise

from schemas.text import is_speakable

# espeak-ng's languages by dialect of the voice catalogue.
LANGUAGES = {"mandarin": "cmn", "cantonese": "yue", "english": "en-us"}

# Words of Latin letters, with the digits and marks inside them ("iPhone 15" keeps its 15 outside: a number in a
# Chinese sentence is read in Chinese), joined over single spaces.
_LATIN_WORD = r"[A-Za-zÀ-ɏ](?:[A-Za-zÀ-ɏ0-9]|['’&.+@/-](?=[A-Za-zÀ-ɏ0-9]))*"
_LATIN = re.compile(rf"{_LATIN_WORD}(?: {_LATIN_WORD})*")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


def split_runs(text: str, dialect: str) -> list[tuple[str, str]]:
    """Give every stretch of the text to the voice that can read it.

    Args:
        text: a sentence.
        dialect: a key of `LANGUAGES`, the one the sentence is spoken in.

    Returns:
        (language of espeak-ng, stretch) in order; the stretches joined are the text.
    """
    home = LANGUAGES[dialect]
    foreign, pattern = ("cmn", _HAN) if home == "en-us" else ("en-us", _LATIN)
    cuts = sorted({0, len(text), *(at for match in pattern.finditer(text) for at in match.span())})
    runs: list[tuple[str, str]] = []
    for start, end in pairwise(cuts):
        stretch = text[start:end]
        language = foreign if pattern.match(stretch) else home
        if runs and (language == runs[-1][0] or not is_speakable(stretch)):
            runs[-1] = (runs[-1][0], runs[-1][1] + stretch)
        else:
            runs.append((language, stretch))
    return _without_mute_start(runs)


def _without_mute_start(runs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(runs) > 1 and not is_speakable(runs[0][1]):
        return [(runs[1][0], runs[0][1] + runs[1][1]), *runs[2:]]
    return runs
