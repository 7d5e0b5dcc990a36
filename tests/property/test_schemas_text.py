"""Canonical text: stable, blind to forms that sound the same, and honest about what has no sound."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.text import canonical_text, is_speakable, primary_language

languages = st.sampled_from(["zh", "en"])
chinese = st.text(alphabet=st.sampled_from("你好世界，。！ 　abc12３Ａ"))
texts = st.one_of(st.text(), chinese)
# Emoji, dingbats, flags, joiners and variation selectors.
emoji = st.text(alphabet=st.sampled_from("😀🎉❤️👩\u200d🚀🇨🇳✨🏽\ufe0f☀\u2728 \n"), min_size=1)


@given(texts, languages)
def test_applying_it_again_changes_nothing(text: str, language: str) -> None:
    once = canonical_text(text, language)
    assert canonical_text(once, language) == once


@given(texts, languages, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_unicode_forms_of_one_text_are_one(text: str, language: str, form: str) -> None:
    assert canonical_text(unicodedata.normalize(form, text), language) == canonical_text(text, language)


@given(st.lists(st.text(alphabet="abcXYZ", min_size=1), min_size=1), st.data(), languages)
def test_white_space_is_one_space(words: list[str], data: st.DataObject, language: str) -> None:
    gap = st.text(alphabet=" \t\n\r\u3000\u00a0\u2009", min_size=1)
    spaced = "".join(word + data.draw(gap) for word in words)
    assert canonical_text(spaced, language) == " ".join(words)


@given(emoji, languages)
def test_emoji_alone_have_no_sound(text: str, language: str) -> None:
    assert canonical_text(text, language) == ""
    assert not is_speakable(canonical_text(text, language))


@given(st.text(alphabet="abc123你好", min_size=1), emoji, languages)
def test_emoji_beside_words_change_nothing(text: str, dressing: str, language: str) -> None:
    assert canonical_text(text + dressing, language) == canonical_text(text, language)


@given(texts, languages)
def test_nothing_invisible_is_left(text: str, language: str) -> None:
    canonical = canonical_text(text, language)
    assert all(unicodedata.category(ch)[0] != "C" for ch in canonical)
    assert canonical == canonical.strip()
    assert "  " not in canonical


@given(st.lists(st.text(alphabet="你好世界欢迎", min_size=1), min_size=1))
def test_spaces_beside_ideographs_go_in_chinese(words: list[str]) -> None:
    assert canonical_text(" ".join(words), "zh") == "".join(words)
    assert canonical_text(" ".join(words), "en") == " ".join(words)


@pytest.mark.parametrize(
    ("first", "second", "language"),
    [
        ("你好， 世界 。", "你好,世界。", "zh"),
        ("ＡＢＣ１２３", "ABC123", "en"),
        ("ﬁne", "fine", "en"),
        ("re\u00adsume", "resume", "en"),
        ("hello\u200b", "hello", "en"),
    ],
)
def test_texts_that_sound_the_same_are_the_same(first: str, second: str, language: str) -> None:
    assert canonical_text(first, language) == canonical_text(second, language)


@pytest.mark.parametrize(("first", "second"), [("US", "us"), ("20°C", "20C"), ("a.", "a?"), ("no, go", "no go")])
def test_texts_that_sound_different_stay_different(first: str, second: str) -> None:
    assert canonical_text(first, "en") != canonical_text(second, "en")


@pytest.mark.parametrize("text", ["", "…", "!?", "—", "。。。", "$"])
def test_marks_alone_have_no_sound(text: str) -> None:
    assert not is_speakable(text)


@pytest.mark.parametrize("text", ["a", "7", "你", "é", "ру", "½"])
def test_letters_and_digits_have_sound(text: str) -> None:
    assert is_speakable(text)


@given(st.text())
def test_the_language_is_the_tags_or_read_from_the_text(text: str) -> None:
    assert primary_language("zh-Hant-TW", text) == "zh"
    assert primary_language("EN", text) == "en"
    assert primary_language(None, "Hi " + text) in {"zh", "en"}
    assert primary_language(None, text + "好") == "zh"
