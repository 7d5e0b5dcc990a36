"""Which voice reads which stretch of a mixed sentence."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.text import is_speakable
from synth_consumer.engines.espeak.runs import LANGUAGES, split_runs


@pytest.mark.parametrize(
    ("text", "dialect", "runs"),
    [
        ("你好。", "mandarin", [("cmn", "你好。")]),
        ("你好。", "cantonese", [("yue", "你好。")]),
        ("Good day.", "english", [("en-us", "Good day.")]),
        ("我的iPhone 15坏了", "mandarin", [("cmn", "我的"), ("en-us", "iPhone"), ("cmn", " 15坏了")]),
        ("用GPT4写", "cantonese", [("yue", "用"), ("en-us", "GPT4"), ("yue", "写")]),
        ("5G网络", "mandarin", [("cmn", "5"), ("en-us", "G"), ("cmn", "网络")]),
        ("说 don't stop，好", "mandarin", [("cmn", "说 "), ("en-us", "don't stop"), ("cmn", "，好")]),
        ("Say 你好 2 times.", "english", [("en-us", "Say "), ("cmn", "你好"), ("en-us", " 2 times.")]),
        ("“OK”好", "mandarin", [("en-us", "“OK"), ("cmn", "”好")]),
        ("", "english", []),
    ],
)
def test_runs(text: str, dialect: str, runs: list[tuple[str, str]]) -> None:
    assert split_runs(text, dialect) == runs


@given(st.text(alphabet=st.sampled_from("你好吗abZ09 ,.。！'-é")), st.sampled_from(sorted(LANGUAGES)))
def test_nothing_is_lost_and_every_stretch_has_a_sound(text: str, dialect: str) -> None:
    runs = split_runs(text, dialect)

    assert "".join(stretch for _, stretch in runs) == text
    assert all(one[0] != two[0] for one, two in pairwise(runs))
    if is_speakable(text):
        assert all(is_speakable(stretch) for _, stretch in runs)
