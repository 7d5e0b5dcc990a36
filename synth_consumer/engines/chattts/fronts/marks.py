"""What every dialect shares: letters folded to those the package keeps, marks, digits that no grammar took. Pure.

The package drops every character that is not A-Z, an ideograph up to U+9FFF, a comma or a full stop, and joins what
stood beside it: "100%" would be silence, "A/B" one word.
"""

import re
import unicodedata

from synth_consumer.engines.chattts.fronts.front_end import Language

_DIGITS: dict[Language, list[str]] = {
    "zh": list("零一二三四五六七八九"),
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
}
# Latin letters that no decomposition brings to A-Z.
_LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "ħ": "h", "Ħ": "H", "ŋ": "ng", "Ŋ": "Ng"}
)
# Every apostrophe and dash there is: U+2019, U+2018, modifier letters, prime; hyphens and the minus sign.
_LIKE = str.maketrans(dict.fromkeys("’‘ʼʹ′´`", "'") | dict.fromkeys("‐‑‒−﹣", "-") | {"\u2044": "/"})
_READABLE = re.compile(r"[A-Za-z\u4e00-\u9fff]")
# What the package turns into a comma or a full stop, and those themselves.
_PAUSES = "，。、,.：；！？（）【】『』「」《》－:;!?()><…—-"
_RUN = re.compile(r"[，。、,.!！?？;；:：…—](?:\s*[，。、,.!！?？;；:：…—])+(?!\d)")
_ENDERS = re.compile(r"[。.!！?？…]")
_ENDS = str.maketrans({"?": ".", "？": "。", "…": "。", "—": ","})
# A hyphen or full stop within a word is no pause.
_WITHIN_WORD = re.compile(r"(?<=[A-Za-z])[-.](?=[A-Za-z])")


def unified(text: str) -> str:
    """The same text in fewer characters: compatibility forms, accents off, one apostrophe, one hyphen, ASCII digits."""
    plain = unicodedata.normalize("NFKC", text).translate(_LIKE)
    return "".join(map(_folded, plain)).translate(_LETTERS)


def collapsed(text: str) -> str:
    """Runs of marks as one: the first that ends a sentence, or else the first."""
    return _RUN.sub(lambda run: (_ENDERS.search(run[0]) or run)[0][0], text)


def unreadable_share(text: str) -> float:
    """Share of the letters that would vanish without a sound, 0..1; 0 of a text without letters."""
    letters = [ch for ch in unified(text) if unicodedata.category(ch)[0] == "L"]
    lost = sum(1 for ch in letters if not _READABLE.match(ch))
    return lost / len(letters) if letters else 0.0


def digits_in_words(text: str, language: Language) -> str:
    """Every digit by itself, also those of other scripts."""
    gap = " " if language == "en" else ""
    return "".join(gap + words + gap if (words := _in_words(ch, language)) else ch for ch in text)


def readable(text: str) -> str:
    """Only what the package reads; all else becomes a space, so that words beside it stay apart."""
    kept = _WITHIN_WORD.sub(" ", text.replace("'", ""))
    spaced = "".join(ch if _READABLE.match(ch) or ch in _PAUSES or ch.isspace() else " " for ch in kept)
    return " ".join(spaced.translate(_ENDS).split())


def _folded(character: str) -> str:
    if character.isascii() or "\u4e00" <= character <= "\u9fff":
        return character
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    base = unicodedata.normalize("NFKD", character)
    # Only Latin: a composed Hangul syllable, or й, is not its parts without a mark.
    if base[0].isascii() and base[0].isalpha():
        return "".join(part for part in base if not unicodedata.combining(part))
    return "" if unicodedata.combining(character) else character


def _in_words(character: str, language: Language) -> str:
    if unicodedata.category(character)[0] != "N":
        return ""
    value = unicodedata.numeric(character, -1.0)
    if value < 0 or not value.is_integer():
        return ""
    gap = " " if language == "en" else ""
    return gap.join(_DIGITS[language][int(digit)] for digit in str(int(value)))
