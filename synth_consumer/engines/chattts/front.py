"""Text front end: what ChatTTS cannot read is written out, and nothing in a user's text is a command.

The package drops every character that is not a letter, an ideograph, a comma or a full stop; "100%" would be silence.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Literal

from synth_consumer.engines.protocol import EngineUnavailableError

Language = Literal["zh", "en"]

_DIGITS: dict[Language, dict[int, str]] = {
    "zh": dict(enumerate("零一二三四五六七八九")),
    "en": dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])),
}
_POINT: dict[Language, str] = {"zh": "点", "en": " point "}
# Words for signs that the number grammar leaves alone.
_SIGNS: dict[Language, tuple[str, ...]] = {
    "zh": ("&和", "@at", "+加", "=等于", "%百分", "$美元", "¥元", "€欧元", "£英镑", "°度"),
    "en": ("&and", "@at", "+plus", "=equals", "%percent", "$dollars", "¥yuan", "€euros", "£pounds", "°degrees"),
}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# "1,234": without its comma the English grammar takes four digits for a year, "twelve thirty four".
_ONE_THOUSAND = re.compile(r"(?<![\d,.$¥€£])(\d),(\d{3})(?!\.?\d|,\d|%)")
# And it says "thousand dollars" for $1000.
_THOUSAND = re.compile(r"(\w+ )?\bthousand\b")
_NUMBER_WORD = re.compile(r"\w*(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|teen|ty|hundred) ")
_DOTTED = re.compile(r"\d+(?:\.\d+){2,}")
_QUESTIONS = str.maketrans({"?": ".", "？": "。", "…": "。", "—": ","})
_BRACKETS = str.maketrans({"[": "(", "]": ")", "{": "(", "}": ")"})


def escape_controls(text: str) -> str:
    """Take the square brackets, without which nothing is a control token such as [laugh] or [spk_emb]."""
    return text.translate(_BRACKETS)


def spell_out(text: str, language: Language) -> str:
    """Numbers, dates, times, units, currencies and percent in words.

    Args:
        text: canonical text.
        language: the one whose words are used.

    Returns:
        Text without digits; punctuation that the package does not know is turned into its nearest.
    """
    had_thousand = "thousand" in text.lower()
    if language == "en":
        text = _ONE_THOUSAND.sub(lambda match: f"{match[1]} thousand {int(match[2]) or ''}".rstrip(), text)
    plain = _DOTTED.sub(lambda match: match[0].replace(".", _POINT[language]), _THOUSANDS.sub("", text))
    words = _grammar(language)(plain).replace("\\", "")
    if language == "en" and not had_thousand:
        words = _THOUSAND.sub(_counted_thousand, words)
    for sign, word in ((entry[0], entry[1:]) for entry in _SIGNS[language]):
        words = words.replace(sign, f" {word} " if language == "en" else word)
    return _leftover_digits(words, language).translate(_QUESTIONS)


def _counted_thousand(match: re.Match[str]) -> str:
    before = match[1] or ""
    return match[0] if _NUMBER_WORD.fullmatch(before) else f"{before}one thousand"


def _leftover_digits(text: str, language: Language) -> str:
    gap = " " if language == "en" else ""
    return "".join(gap + _DIGITS[language][int(ch)] + gap if ch.isdecimal() else ch for ch in text)


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
