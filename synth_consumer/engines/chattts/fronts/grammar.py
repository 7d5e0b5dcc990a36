"""wetext's number grammar, made total: what it cannot parse is given to it in smaller parts, and then left alone.

Its English rules raise a bare AssertionError for texts as plain as "We are #1.".
"""

import logging
import re
from collections.abc import Callable
from functools import cache

from synth_consumer.engines.chattts.fronts.front_end import Language
from synth_consumer.engines.protocol import EngineUnavailableError

# The grammars are transducers compiled for these; anything else is a chance to fail and never a chance to help.
_UNKNOWN = re.compile(r"[^\w\s.,:;!?'\"()/%$¥€£°℃+\-~×=，。！？；：、（）“”‘’《》—…·∶]")
# One word longer than this is not a word; cut, so that the grammar's time stays bounded.
_MOST_CHARACTERS = 200


def written_out(text: str, language: Language) -> str:
    """Numbers, dates, times, units and currencies in words, wherever the grammar knows how.

    Args:
        text: a sentence or so; the grammar's time grows with the square of its length.
        language: whose words.
    """
    return _in_parts(_UNKNOWN.sub(" ", text), _grammar(language))


def _in_parts(text: str, grammar: Callable[[str], str]) -> str:
    if not text.strip():
        return text
    if len(text) <= _MOST_CHARACTERS:
        try:
            return _kept_edges(text, grammar(text))
        except Exception as error:
            # Which exceptions there are is nobody's promise; the class alone is told, as a message may hold the text.
            logging.getLogger(__name__).debug("the number grammar failed: %s", type(error).__name__)
    middle = _middle(text)
    if middle == 0:
        return text
    return _in_parts(text[:middle], grammar) + _in_parts(text[middle:], grammar)


def _kept_edges(text: str, words: str) -> str:
    """The grammar trims; a part's white space is what keeps it apart from the next."""
    front = " " if text[:1].isspace() else ""
    behind = " " if text[-1:].isspace() else ""
    return f"{front}{words.strip()}{behind}"


def _middle(text: str) -> int:
    """Where to cut in two: at the space nearest the middle, or within a word too long; 0 for one to leave alone."""
    half = len(text) // 2
    spaces = [at for at, character in enumerate(text) if character.isspace() and 0 < at < len(text) - 1]
    if spaces:
        return min(spaces, key=lambda at: abs(at - half))
    return half if len(text) > _MOST_CHARACTERS else 0


@cache
def _grammar(language: Language) -> Callable[[str], str]:
    try:
        from wetext import Normalizer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(
            f"the chattts engine needs {error.name}, which is not installed; "
            "install it with: pip install 'voxbus[chattts]'"
        ) from None
    normalize: Callable[[str], str] = Normalizer(lang=language, operator="tn").normalize
    return normalize
