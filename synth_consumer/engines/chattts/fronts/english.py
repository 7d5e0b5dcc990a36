"""English: signs and shorthand in words before the number grammar, contractions after it."""

import re

from synth_consumer.engines.chattts.fronts.front_end import FrontEnd
from synth_consumer.engines.chattts.fronts.grammar import written_out
from synth_consumer.engines.chattts.fronts.marks import collapsed, digits_in_words, readable, unified
from synth_consumer.engines.chattts.fronts.rules import Rules, number_pattern

_N = number_pattern()
_MONEY = {
    "₹": "rupees", "₽": "rubles", "₩": "won", "₺": "lira", "₫": "dong", "฿": "baht", "₱": "pesos", "₦": "naira",
    "₴": "hryvnia", "₿": "bitcoin", "₪": "shekels",
}  # fmt: skip
_DOLLARS = {
    "HK": "Hong Kong dollars", "NT": "New Taiwan dollars", "A": "Australian dollars", "C": "Canadian dollars",
    "CA": "Canadian dollars", "AU": "Australian dollars", "S": "Singapore dollars", "R": "reais",
}  # fmt: skip
_SHORTHAND = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miss", "Prof": "Professor", "vs": "versus",
    "approx": "approximately", "Jr": "Junior", "Sr": "Senior", "Inc": "Inc", "Ltd": "Limited", "Co": "Co",
    "Corp": "Corp", "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June",
    "Jul": "July", "Aug": "August", "Sep": "September", "Sept": "September", "Oct": "October", "Nov": "November",
    "Dec": "December",
}  # fmt: skip
_DECADES = [
    "hundreds",
    "tens",
    "twenties",
    "thirties",
    "forties",
    "fifties",
    "sixties",
    "seventies",
    "eighties",
    "nineties",
]
_CENTURIES = {"17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty"}
_YEAR = r"(1[5-9]\d\d|20\d\d)"

# In this order: the first that fits takes the text.
_BEFORE = Rules(
    (r"\bU\.S\.", "US"),
    (r"\be\.g\.,?", "for example"),
    (r"\bi\.e\.,?", "that is"),
    (r"\b([ap])\.m\.", r"\1m"),
    (r"\b(No|Nos)\.\s?(?=\d)", "number "),
    (rf"\b({'|'.join(_SHORTHAND)})\.(?=\s*[A-Za-z\d])", lambda m: _SHORTHAND[m[1]]),
    # Signs that touch a number.
    (r"\+(\d[\d ()\-]{6,}\d)", lambda m: " plus " + _one_by_one(m[1])),
    (r"(?<![\d-])(?:\(\d{3}\)\s?|\d{3}[-.])?\d{3}[-.]\d{4}(?![\d-])", lambda m: _one_by_one(m[0])),
    (r"\+(?=\d)", " plus "),
    (r"\bC#", "C sharp"),
    (r"#(?=\d)", " number "),
    (r"#(?=[A-Za-z])", " hashtag "),
    (r"(\d)\*(?!\d)", r"\1 star"),
    (rf"({_N})\s?¢", r"\1 cents"),
    (r"\bUS\$", "$"),
    (rf"\b({'|'.join(sorted(_DOLLARS, key=len, reverse=True))})\$\s?({_N})", lambda m: f"{m[2]} {_DOLLARS[m[1]]}"),
    (rf"([{''.join(_MONEY)}])\s?({_N})", lambda m: f"{m[2]} {_MONEY[m[1]]}"),
    (rf"({_N})\s?([{''.join(_MONEY)}])", lambda m: f"{m[1]} {_MONEY[m[2]]}"),
    (rf"({_N})\s?([€£])", r"\2\1"),
    (r"(?<=[€£])(\d+),(\d\d?)(?!\d)", r"\1.\2"),
    (rf"\b({_N})\s?USD\b", r"\1 US dollars"),
    # Ranges and years.
    (rf"(?<![\d-]){_YEAR}\s?[-–—]\s?{_YEAR}(?![\d-])", r"\1 to \2"),
    (r"(\d%)\s?[-–—~]\s?(?=\d)", r"\1 to "),
    (r"(?<=\d)\s?–\s?(?=\d)", "-"),
    (r"~\s?(?=\d)", "about "),
    (r"\b(17|18|19|20)(\d)0'?s\b", lambda m: _decade(m[1], int(m[2]))),
    # Units that the grammar takes for minutes, or for nothing.
    (r"(?<![$€£¥\d.,])1\s?m\b(?!')", "1 meter"),
    (r"(?<![$€£¥\d.,])(\d[\d,]*(?:\.\d+)?)\s?m\b(?!')", r"\1 meters"),
    (r"(\d)\s?m2\b", r"\1 square meters"),
    (r"(?<![\d.,])1\s?[lL]\b", "1 liter"),
    (r"(\d)\s?[lL]\b", r"\1 liters"),
    # Between numbers, and alone; the grammar says "equal sign".
    (r"&", " and "), (r"@", " at "), (r"=", " equals "),
    (r"\s?±\s?", " plus or minus "),
    (r"\s?[×✕]\s?", " times "),
    (r"\s?÷\s?", " divided by "),
    (r"(?<=\d)\s?\*\s?(?=\d)", " times "),
    (r"(?<=\w)\^(?=\d)", " to the power of "),
    (r"\s?≥\s?", " at least "),
    (r"\s?≤\s?", " at most "),
    (r"\s?≈\s?", " about "),
    (r"\s?[→⇒]\s?", " to "),
    (r"(?<=\d)\s?<\s?(?=\d)", " less than "),
    (r"(?<=\d)\s?>\s?(?=\d)", " greater than "),
    # An address is one word whose dots are spoken.
    (r"(?<=[A-Za-z0-9])\.(?=[a-z]{2,})", " dot "),
    (r"://", " "),
)  # fmt: skip
# "1,234": without its comma the grammar takes four digits for a year, "twelve thirty four".
_NUMBERS = Rules(
    (r"(?<![\d,.$¥€£])(\d),(\d{3})(?!\.?\d|,\d|%)", lambda m: f"{m[1]} thousand {int(m[2]) or ''}".rstrip()),
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\d+(?:\.\d+){2,}", lambda m: m[0].replace(".", " point ")),
)
CONTRACTIONS = Rules(
    # The package drops apostrophes: "we'll" would be "well".
    (r"(?i)\b(ca)n't\b", r"\1n not"),
    (r"(?i)\bwon't\b", "will not"),
    (r"(?i)\bshan't\b", "shall not"),
    (r"(?i)n't\b", " not"),
    (r"(?i)\blet's\b", "let us"),
    (r"(?i)'re\b", " are"),
    (r"(?i)'ve\b", " have"),
    (r"(?i)'ll\b", " will"),
    (r"(?i)\bI'm\b", "I am"),
    (r"(?i)\b(it|that|what|he|she|there|here|who|where|how|when)'s\b", r"\1 is"),
    (r"(?i)\b(I|you|he|she|it|we|they|who)'d\b", r"\1 would"),
    (r"(?i)\bo'clock\b", "o clock"),
)
_AFTER = Rules(
    (r"\+", " plus "), (r"%", " percent "),
    (r"\$", " dollars "), (r"¥", " yuan "), (r"€", " euros "), (r"£", " pounds "), (r"°", " degrees "),
)  # fmt: skip
# The grammar says "thousand dollars" for $1000.
_THOUSAND = re.compile(r"(\w+ )?\bthousand\b")
_NUMBER_WORD = re.compile(r"\w*(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|teen|ty|hundred) ")


def prepare(text: str) -> str:
    """See `FrontEnd`."""
    return collapsed(_BEFORE(unified(text)))


def spell(text: str) -> str:
    """See `FrontEnd`."""
    had_thousand = "thousand" in text.lower()
    words = written_out(_NUMBERS(text), "en")
    if not had_thousand:
        words = _THOUSAND.sub(_counted_thousand, words)
    return readable(_AFTER(CONTRACTIONS(digits_in_words(words, "en"))))


def _counted_thousand(match: re.Match[str]) -> str:
    before = match[1] or ""
    return match[0] if _NUMBER_WORD.fullmatch(before) else f"{before}one thousand"


def _one_by_one(number: str) -> str:
    """A telephone number: its groups stay apart."""
    groups = re.findall(r"\d+", number)
    return ", ".join(" ".join(digits_in_words(digit, "en").strip() for digit in group) for group in groups)


def _decade(century: str, decade: int) -> str:
    if century == "20" and decade == 0:
        return "two thousands"
    return f"{_CENTURIES[century]} {_DECADES[decade]}"


FRONT = FrontEnd("en", prepare, spell)
