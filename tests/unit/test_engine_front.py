"""What ChatTTS is given to read: no digits, no signs, no commands, and nothing that was said is lost."""

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synth_consumer.engines.chattts.front import (
    FRONTS,
    Language,
    front_end,
    hide_controls,
    show_controls,
    spell_out,
    spelled,
)
from synth_consumer.engines.chattts.fronts import grammar
from synth_consumer.engines.chattts.fronts.marks import unreadable_share
from synth_consumer.engines.protocol import TaskRefusedError

pytestmark = pytest.mark.chattts

_PLAIN = "0123456789 ,.!?;:'\"#%&@+-−–—*/\\()[]{}<>=~^|_°℃$€£¥₹¢½²①٣abcmkgKMLhs你好年月日元第点"
ANY_TEXT = st.text(st.sampled_from(_PLAIN) | st.characters(codec="utf-8"), max_size=40)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("100%的用户", "百分之一百的用户"),
        ("2026年11月23日", "二零二六年十一月二十三日"),
        ("2026-11-23", "二零二六年十一月二十三日"),
        ("价格是35.5元", "价格是三十五点五元"),
        ("¥35.50", "三十五点五零元"),
        ("-5℃", "负五摄氏度"),
        ("气温−5℃", "气温负五摄氏度"),
        ("下降-0.5%", "下降百分之负零点五"),
        ("3/4", "四分之三"),
        ("跑了5km", "跑了五公里"),
        ("30㎡的房间", "三十平方米的房间"),
        ("血压120mmHg", "血压一百二十毫米汞柱"),
        ("时速100km/h", "时速每小时一百公里"),
        ("0.5L水", "零点五升水"),
        ("10:30开会", "十点三十分开会"),
        ("18:00-20:00", "十八点到二十点"),
        ("卖了1,234,567台", "卖了一百二十三万四千五百六十七台"),
        ("电话13800138000", "电话幺三八零零幺三八零零零"),
        ("拨010-12345678", "拨零一零一二三四五六七八"),
        ("+86 13800138000", "加八六一三八零零一三八零零零"),
        ("版本2.0.1", "版本二点零点一"),
        ("1999-2003", "一九九九到二零零三"),
        ("1999–2003年", "一九九九到二零零三年"),
        ("1990年代", "一九九零年代"),
        ("3-5天", "三到五天"),
        ("5-3=2", "五减三等于二"),
        ("50%~60%", "百分之五十到百分之六十"),
        ("HK$100", "一百港元"),
        ("NT$50", "五十新台币"),
        ("US$100", "一百美元"),
        ("$3.5M", "三百五十万美元"),
        ("€20", "二十欧元"),
        ("₹100", "一百印度卢比"),
        ("50¢", "五十美分"),
        ("第3名", "第三名"),
        ("#1", "一号"),
        ("10^3", "十的三次方"),
        ("José说Don’t", "Jose说Do not"),
        ("走吗?", "走吗."),
    ],
)
def test_chinese(text: str, words: str) -> None:
    assert spell_out(text, "zh") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("100% of users", "one hundred percent of users"),
        ("50%-60%", "fifty to sixty percent"),
        ("on 2026-11-23", "on the twenty third of november twenty twenty six"),
        ("It costs $35.50.", "It costs thirty five point five dollars."),
        ("$3.5M", "three point five million dollars"),
        ("€20", "twenty euros"),
        ("€1,5", "one point five euros"),
        ("1,5 €", "one point five euros"),
        ("HK$100", "one hundred Hong Kong dollars"),
        ("50¢ each", "fifty cents each"),
        ("₹100 is cheap", "one hundred rupees is cheap"),
        ("-5°C", "negative five degrees Celsius"),
        ("It is −5 outside", "It is negative five outside"),
        ("3/4", "three quarters"),
        ("5 km/h", "five kilometers per hour"),
        ("3 m long", "three meters long"),
        ("0.5L", "zero point five liters"),
        ("30㎡ room", "thirty square meters room"),
        ("the 3rd time", "the third time"),
        ("at 10:30 pm", "at ten thirty PM"),
        ("born in the 1990s", "born in the nineteen nineties"),
        ("in 2024", "in twenty twenty four"),
        ("1999–2001", "nineteen ninety nine to two thousand one"),
        ("3-5 days", "three to five days"),
        ("1,234 items", "one thousand two hundred and thirty four items"),
        ("1,000 or 12,345.", "one thousand or twelve thousand three hundred and forty five."),
        ("$1,234.50", "one thousand two hundred and thirty four point five dollars"),
        ("A&B", "A and B"),
        ("A/B", "A B"),
        ("me@x.com", "me at x dot com"),
        ("a thousand and 1,000,000", "a thousand and one million"),
        ("We are #1.", "We are number one."),
        ("Ticket #12 is closed", "Ticket number twelve is closed"),
        ("Call +86 138", "Call plus eighty six one hundred and thirty eight"),
        ("phone +1 555 0100", "phone plus one, five five five, zero one zero zero"),
        ("555-0100", "five five five, zero one zero zero"),
        ("5* hotel", "five star hotel"),
        ("5 × 3 = 15", "five times three equals fifteen"),
        ("Don’t worry, it’s José’s café", "Do not worry, it is Joses cafe"),
        ("we’ll see, they can't", "we will see, they can not"),
        ("Dr. Smith, No. 5", "Doctor Smith, number five"),
        ("well-known", "well known"),
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


_NUMBER_WORDS: dict[Language, tuple[str, ...]] = {
    "zh": tuple("零一二三四五六七八九十百千万亿两幺半"),
    "en": (
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        *("teen", "ty", "hundred", "thousand", "illion", "first", "second", "third", "fifth", "ninth", "twelfth"),
        *("quarter", "half", "oh"),
    ),
}


@pytest.mark.parametrize("language", ["zh", "en"])
@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example(text="#1")
@example(text="a" * 500 + "5")
@example(text="\ud7ff\U0010ffff5")
def test_any_text_is_spelled_and_no_digit_vanishes(language: Language, text: str) -> None:
    words = spell_out(text, language)

    assert not any(unicodedata.category(ch)[0] == "N" and unicodedata.decimal(ch, None) is not None for ch in words)
    if any(unicodedata.decimal(ch, None) is not None for ch in text):
        assert any(word in words for word in _NUMBER_WORDS[language])


def test_a_grammar_that_fails_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    real = grammar._grammar("en")

    def fails(text: str) -> str:
        if "cursed" in text:
            raise AssertionError
        return real(text)

    monkeypatch.setattr(grammar, "_grammar", lambda _: fails)

    assert spell_out("it is 5 km to the cursed 7 and 20% more", "en") == (
        "it is five kilometers to the cursed seven and twenty percent more"
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5).flatmap(lambda n: st.text("，,。.!?…好", min_size=n * 100, max_size=n * 100)))
def test_the_grammar_is_never_asked_for_much_at_once(text: str) -> None:
    asked: list[int] = []

    def counted(part: str) -> str:
        asked.append(len(part))
        return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar, "_grammar", lambda _: counted)
        grammar.written_out(text, "zh")

    assert max(asked, default=0) <= 200


@pytest.mark.parametrize(("marks", "one"), [("，" * 3_000, ","), ("?!", "."), ("……", "."), ("...", ".")])
def test_a_run_of_marks_is_one_mark(marks: str, one: str) -> None:
    assert spell_out(f"好{marks}好", "zh") == f"好{one}好"


@pytest.mark.parametrize(
    ("text", "share"),
    [("Привет. Hello", 6 / 11), ("こんにちは", 1.0), ("你好 José", 0.0), ("12", 0.0), ("𠮷野家", 1 / 3)],
)
def test_letters_that_would_vanish_are_counted(text: str, share: float) -> None:
    assert unreadable_share(text) == pytest.approx(share)


def test_a_dialect_has_its_front_end_or_is_refused() -> None:
    assert set(FRONTS) == {"mandarin", "english"}
    with pytest.raises(TaskRefusedError) as refused:
        front_end("cantonese")
    assert refused.value.code == "unsupported_dialect"


def test_control_tokens_in_a_text_are_only_text() -> None:
    hidden = hide_controls("好[laugh][spk_emb]{x}", allowed=False)

    assert show_controls(spelled(hidden, FRONTS["mandarin"])) == "好(laugh)(spk emb)(x)"


def test_allowed_control_tokens_outlive_the_spelling_and_others_do_not() -> None:
    hidden = hide_controls("好5[laugh]天[spk_emb][uv_break]好\ue000", allowed=True)

    assert show_controls(spelled(hidden, FRONTS["mandarin"])) == "好五[laugh]天(spk emb)[uv_break]好"


def _prepare_s(dialect: str, text: str) -> float:
    """CPU time of this thread, the least of some, so that a busy machine does not count."""

    def once() -> float:
        start = time.thread_time()
        FRONTS[dialect].prepare(text)
        return time.thread_time() - start

    return min(once() for _ in range(3))


@pytest.mark.parametrize("dialect", sorted(FRONTS))
@pytest.mark.parametrize("run", ["1", "1,", "1.", "1,,", "1 ", "1-", "€1", "(1", "+1", "a.", "…", "'9", "¢"])
def test_a_whole_text_is_prepared_in_time_linear_in_its_length(dialect: str, run: str) -> None:
    short, long = (_prepare_s(dialect, (run * n)[:n]) for n in (2_000, 8_000))

    # Four times the text; a quadratic rule takes sixteen times as long.
    assert long < 9 * max(short, 0.002)


@pytest.mark.parametrize(("dialect", "word"), [("english", "cents"), ("mandarin", "美分")])
def test_a_number_too_long_to_be_one_keeps_its_unit(dialect: str, word: str) -> None:
    assert FRONTS[dialect].prepare("7" * 100 + "¢").replace(" ", "") == "7" * 100 + word
