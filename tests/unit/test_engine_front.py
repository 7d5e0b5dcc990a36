"""What ChatTTS is given to read: no digits, no signs, no commands."""

import pytest

from synth_consumer.engines.chattts.front import Language, escape_controls, spell_out

pytestmark = pytest.mark.chattts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("100%的用户", "百分之一百的用户"),
        ("2026年11月23日", "二零二六年十一月二十三日"),
        ("2026-11-23", "二零二六年十一月二十三日"),
        ("价格是35.5元", "价格是三十五点五元"),
        ("¥35.50", "三十五点五零元"),
        ("-5℃", "负五摄氏度"),
        ("3/4", "四分之三"),
        ("跑了5km", "跑了五公里"),
        ("10:30开会", "十点三十分开会"),
        ("卖了1,234,567台", "卖了一百二十三万四千五百六十七台"),
        ("电话13800138000", "电话幺三八零零幺三八零零零"),
        ("版本2.0.1", "版本二点零点一"),
        ("走吗?", "走吗."),
    ],
)
def test_chinese(text: str, words: str) -> None:
    assert spell_out(text, "zh") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("100% of users", "one hundred percent of users"),
        ("on 2026-11-23", "on the twenty third of november twenty twenty six"),
        ("It costs $35.50.", "It costs thirty five point five dollars."),
        ("€20", "twenty euros"),
        ("-5°C", "negative five degrees Celsius"),
        ("3/4", "three quarters"),
        ("5 km/h", "five kilometers per hour"),
        ("the 3rd time", "the third time"),
        ("at 10:30 pm", "at ten thirty PM"),
        ("1,234 items", "one thousand two hundred and thirty four items"),
        ("1,000 or 12,345.", "one thousand or twelve thousand three hundred and forty five."),
        ("$1,234.50", "one thousand two hundred and thirty four point five dollars"),
        ("A&B", "A and B"),
        ("a thousand and 1,000,000", "a thousand and one million"),
    ],
)
def test_english(text: str, words: str) -> None:
    assert " ".join(spell_out(text, "en").split()) == words


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(
    "text", ["1234567890123456789012", "v2.0.1.3", "1,2,34", "٣٤", "9%9%", "$", "3:2:1", "1-2-3-4"]
)
def test_no_digit_is_left(language: Language, text: str) -> None:
    words = spell_out(text, language)

    assert not any(ch.isdigit() for ch in words)
    assert any(ch.isalpha() for ch in words)


def test_control_tokens_in_a_text_are_only_text() -> None:
    escaped = escape_controls("好[laugh][spk_emb]{x}")

    assert "[" not in escaped
    assert "]" not in escaped
