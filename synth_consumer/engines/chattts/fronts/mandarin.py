"""Mandarin: signs and shorthand in words before the number grammar."""

import re
from decimal import Decimal, InvalidOperation

from synth_consumer.engines.chattts.fronts.english import CONTRACTIONS
from synth_consumer.engines.chattts.fronts.front_end import FrontEnd
from synth_consumer.engines.chattts.fronts.grammar import written_out
from synth_consumer.engines.chattts.fronts.marks import collapsed, digits_in_words, readable, unified
from synth_consumer.engines.chattts.fronts.rules import Rules, number_pattern

_N = number_pattern()
_MONEY = {
    "₹": "印度卢比", "₽": "卢布", "₩": "韩元", "₺": "里拉", "₫": "越南盾", "฿": "泰铢", "₱": "比索", "₿": "比特币",
    "¢": "美分", "₪": "谢克尔",
}  # fmt: skip
_DOLLARS = {
    "HK": "港元", "NT": "新台币", "US": "美元", "A": "澳元", "AU": "澳元", "C": "加元", "CA": "加元", "S": "新加坡元",
    "R": "雷亚尔", "": "美元",
}  # fmt: skip
_CODES = {"HKD": "港元", "USD": "美元", "EUR": "欧元", "GBP": "英镑", "JPY": "日元", "CNY": "元", "RMB": "元"}
# Of "$3.5M": what the number is multiplied with, and the Chinese unit behind it.
_MANY = {"": (1, ""), "k": (1_000, ""), "m": (100, "万"), "b": (10, "亿")}
_YEAR = r"(1[5-9]\d\d|20\d\d)"

# In this order: the first that fits takes the text.
_BEFORE = Rules(
    # Before the grammar: it says 美元 for HK$, and loses M.
    (rf"(?<![A-Za-z])(HK|NT|US|AU|CA|A|C|S|R|)\$\s?({_N})([KkMmBb]?)(?![A-Za-z])",
     lambda m: _many(m[2], m[3]) + _DOLLARS[m[1]]),
    (rf"([{''.join(_MONEY)}])\s?({_N})", lambda m: f"{m[2]}{_MONEY[m[1]]}"),
    (rf"({_N})\s?([{''.join(_MONEY)}])", lambda m: f"{m[1]}{_MONEY[m[2]]}"),
    (rf"\b({'|'.join(_CODES)})\s?({_N})", lambda m: f"{m[2]}{_CODES[m[1]]}"),
    (rf"({_N})\s?({'|'.join(_CODES)})\b", lambda m: f"{m[1]}{_CODES[m[2]]}"),
    # A telephone number with its country.
    (r"\+(\d[\d \-]{6,}\d)", lambda m: "加" + digits_in_words(re.sub(r"\D", "", m[1]), "zh")),
    (r"\+(?=\d)", "加"),
    (r"\b(?:No\.?|#)\s?(\d+)", r"\1号"),
    (r"#(\d+)", r"\1号"),
    # Ranges: the grammar takes a bare one for a subtraction.
    (rf"(?<![\d-]){_YEAR}\s?[-–—~]\s?{_YEAR}(?:年|(?![\d-]))", lambda m: _years(m[1], m[2], m[0])),
    (r"(?<![\d.-])([1-9]\d{0,3})\s?[-–~]\s?([1-9]\d{0,3})(?![\d.\-–~])", lambda m: _range(m[1], m[2], m[0])),
    (r"(?<=\d)\s?–\s?(?=\d)", "-"),
    (r"(\d)\s?mmHg\b", r"\1毫米汞柱"),
    (r"(\d)\^(\d+)", r"\1的\2次方"),
    (r"&", "和"), (r"@", "艾特"),
    (r"±", "正负"), (r"÷", "除以"), (r"≥", "大于等于"), (r"≤", "小于等于"), (r"≈", "约等于"),
    (r"(?<=\d)\s?\*\s?(?=\d)", "乘"),
    (r"(?<=\d)\s?<\s?(?=\d)", "小于"), (r"(?<=\d)\s?>\s?(?=\d)", "大于"),
    (r"[→⇒]", "到"),
    (r"(?<=[A-Za-z0-9])\.(?=[a-z]{2,})", "点"),
    (r"://", " "),
)  # fmt: skip
_NUMBERS = Rules(
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\d+(?:\.\d+){2,}", lambda m: m[0].replace(".", "点")),
)
_AFTER = Rules(
    (r"\+", "加"), (r"=", "等于"), (r"%", "百分"), (r"\$", "美元"), (r"¥", "元"),
    (r"€", "欧元"), (r"£", "英镑"), (r"°", "度"), (r"×", "乘"),
)  # fmt: skip


def prepare(text: str) -> str:
    """See `FrontEnd`."""
    return collapsed(_BEFORE(unified(text)))


def spell(text: str) -> str:
    """See `FrontEnd`."""
    words = written_out(_NUMBERS(text), "zh").replace("\\", "")
    return readable(_AFTER(CONTRACTIONS(digits_in_words(words, "zh"))))


def _years(first: str, last: str, whole: str) -> str:
    year = "年" if whole.endswith("年") else ""
    return f"{digits_in_words(first, 'zh')}到{digits_in_words(last, 'zh')}{year}"


def _many(number: str, letter: str) -> str:
    """3.5M as it is counted in Chinese: 350万."""
    factor, unit = _MANY[letter.lower()]
    if not letter:
        return number
    try:
        value = Decimal(number.replace(",", "")) * factor
    except InvalidOperation:
        return number + letter
    return f"{value.normalize():f}{unit}"


def _range(first: str, last: str, whole: str) -> str:
    """Upwards it is a range; downwards it may be a subtraction, which the grammar knows."""
    return f"{first}到{last}" if int(first) < int(last) else whole


FRONT = FrontEnd("zh", prepare, spell)
