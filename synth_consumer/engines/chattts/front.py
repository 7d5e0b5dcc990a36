"""Text front ends by dialect: what ChatTTS cannot read is written out, and nothing in a user's text is a command.

A newcomer is a file in `fronts/` with a `FRONT`, a line here, and its dialect in the voice catalogue.
"""

import re

from schemas.codes import ErrorCode
from synth_consumer.engines.chattts.fronts import english, mandarin
from synth_consumer.engines.chattts.fronts.front_end import FrontEnd, Language
from synth_consumer.engines.protocol import TaskRefusedError

__all__ = ["FRONTS", "FrontEnd", "Language", "front_end", "hide_controls", "show_controls", "spell_out"]

FRONTS: dict[str, FrontEnd] = {"mandarin": mandarin.FRONT, "english": english.FRONT}

# The package's tokens that make sense inside a sentence. Others, such as [spk_emb], would break the prompt.
_CONTROLS = ("uv_break", "v_break", "lbreak", "laugh")
_CONTROL = re.compile(rf"\[({'|'.join(_CONTROLS)})\]")
_BRACKETS = str.maketrans({"[": "(", "]": ")", "{": "(", "}": ")"})
# While text is worked on a control is one character for private use, which canonical text never holds.
_HIDDEN = {name: chr(0xE000 + number) for number, name in enumerate(_CONTROLS)}
_SHOWN = {code: f"[{name}]" for name, code in _HIDDEN.items()}
_ANY_HIDDEN = re.compile(f"([{''.join(_SHOWN)}])")


def front_end(dialect: str) -> FrontEnd:
    """The front end of a dialect of the catalogue.

    Raises:
        TaskRefusedError: `unsupported_dialect`, there is none.
    """
    if dialect not in FRONTS:
        known = ", ".join(FRONTS)
        raise TaskRefusedError(
            ErrorCode.UNSUPPORTED_DIALECT, f"chattts has no front end for {dialect!r}; it has {known}"
        )
    return FRONTS[dialect]


def hide_controls(text: str, *, allowed: bool) -> str:
    """Take the square brackets, without which nothing is a control token; allowed ones become a character each."""
    text = _ANY_HIDDEN.sub(" ", text)
    if allowed:
        text = _CONTROL.sub(lambda match: _HIDDEN[match[1]], text)
    return text.translate(_BRACKETS)


def show_controls(text: str) -> str:
    """The allowed control tokens in brackets again, as the package reads them."""
    return _ANY_HIDDEN.sub(lambda match: _SHOWN[match[1]], text)


def spelled(text: str, front: FrontEnd) -> str:
    """One prepared sentence in words, its hidden controls left where they are."""
    parts = _ANY_HIDDEN.split(text)
    return "".join(part if part in _SHOWN else front.spell(part) for part in parts).strip()


def spell_out(text: str, language: Language) -> str:
    """A whole text in words. For short ones: the time grows with the square of the length.

    Returns:
        Text without digits; punctuation that the package does not know is turned into its nearest.
    """
    front = mandarin.FRONT if language == "zh" else english.FRONT
    return front.spell(front.prepare(text))
