"""Canonical text: two texts that sound the same should be the same string, and nothing else should.

Pure, standard library only. The rules are part of the fingerprint: changing one means a new fingerprint version.
"""

import re
import unicodedata

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
# Ideographs, and the marks that stand beside them: a space there is never spoken.
_SPACE_BESIDE_HAN = re.compile(f"(?<=[{_HAN}\u3001\u3002]) | (?=[{_HAN}\u3001\u3002])")
_SPOKEN_SYMBOLS = frozenset("°©®℃№")
# Symbols that no voice reads (emoji, dingbats), marks that only dress them, and all that is invisible.
_SILENT_CATEGORIES = frozenset({"So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn"})
_EMOJI_DRESS = re.compile("[\ufe00-\ufe0f\u20e3\U000e0100-\U000e01ef]")


def _audible(character: str) -> bool:
    return character in _SPOKEN_SYMBOLS or unicodedata.category(character) not in _SILENT_CATEGORIES


def canonical_text(text: str, language: str) -> str:
    """The text as it is spoken and fingerprinted.

    NFKC (full-width forms, ligatures), emoji and invisible characters out, white space folded to single spaces;
    in Chinese, spaces beside ideographs go as well. Letter case stays: "US" and "us" sound different.

    Args:
        text: what the client sent.
        language: primary tag, "zh" or "en".

    Returns:
        Canonical text, possibly empty. Applying the function again changes nothing.
    """
    spaced = re.sub(r"\s", " ", text)
    audible = "".join(ch for ch in unicodedata.normalize("NFKC", spaced) if _audible(ch))
    # Taking characters out can bring a letter and a combining mark together, so compose once more.
    composed = unicodedata.normalize("NFKC", _EMOJI_DRESS.sub("", audible))
    folded = " ".join(composed.split())
    return _SPACE_BESIDE_HAN.sub("", folded) if language == "zh" else folded


def is_speakable(text: str) -> bool:
    """Whether anything in the text has a sound: a letter of any script, or a digit."""
    return any(unicodedata.category(ch)[0] in "LN" for ch in text)


def primary_language(tag: str | None, text: str) -> str:
    """The primary language: of the tag when there is one, otherwise "zh" as soon as one ideograph occurs, else "en"."""
    if tag is not None:
        return tag.split("-", 1)[0].lower()
    return "zh" if _HAN_CHARACTER.search(text) else "en"
