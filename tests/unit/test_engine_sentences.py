"""Cutting text into pieces for one breath."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_consumer.engines.sentences import Break, Piece, split_sentences, spoken_seconds

MIXED = st.text(alphabet=st.sampled_from("你好再见吗abcXYZ 0123.,!?;:，。！？；：…\n\"'”’（）()-¥%"), max_size=300)


def texts(text: str, max_seconds: float = 25.0) -> list[str]:
    return [piece.text for piece in split_sentences(text, max_seconds)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("  ", []),
        ("你好", ["你好"]),
        ("你好。再见！走吗？好", ["你好。", "再见！", "走吗？", "好"]),
        ("Hi there. Good day! Yes", ["Hi there.", "Good day!", "Yes"]),
        ("It costs 3.50 dollars. Fine.", ["It costs 3.50 dollars.", "Fine."]),
        ("See example.com now. Bye.", ["See example.com now.", "Bye."]),
        ("他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
        ("真的吗?!是的……好。", ["真的吗?!", "是的……", "好。"]),
        ("one\ntwo", ["one", "two"]),
    ],
)
def test_sentences(text: str, pieces: list[str]) -> None:
    assert texts(text) == pieces


def test_a_long_sentence_is_cut_at_its_clauses() -> None:
    assert split_sentences("今天很好，明天更好，后天最好。", 1.0) == [
        Piece("今天很好，", Break.CLAUSE),
        Piece("明天更好，", Break.CLAUSE),
        Piece("后天最好。", Break.SENTENCE),
    ]


def test_clauses_share_a_piece_while_they_fit() -> None:
    assert texts("一天，两天，三天，四天。", 1.0) == ["一天，两天，", "三天，四天。"]


def test_numbers_are_never_cut_at_their_marks() -> None:
    assert texts("1,000,000 and 10:30 and 3.14", 3.0) == ["1,000,000 and", "10:30 and 3.14"]


def test_a_clause_that_is_too_long_is_cut_between_words() -> None:
    pieces = texts("word " * 100, 3.0)

    assert all(piece.replace("word", "").strip() == "" for piece in pieces)
    assert len(pieces) > 5


@given(MIXED, st.floats(0.5, 30))
def test_nothing_is_lost_and_every_piece_is_short(text: str, max_seconds: float) -> None:
    pieces = texts(text, max_seconds)

    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(spoken_seconds(piece) <= max_seconds + 1e-9 for piece in pieces)
    assert all(piece == piece.strip() and piece for piece in pieces)


def test_lengths_are_plausible() -> None:
    assert 2 < spoken_seconds("你好，欢迎致电客服中心") < 4
    assert 2 < spoken_seconds("Hello, welcome to the service center") < 4
    assert spoken_seconds("，。!? ") == 0


def test_upper_case_is_read_letter_by_letter() -> None:
    assert spoken_seconds("HTTPS") > 3 * spoken_seconds("https")
    assert spoken_seconds("Hello") == spoken_seconds("hello")
    assert max(map(spoken_seconds, texts("NBA CEO FBI HTTPS " * 80))) <= 25.0


@pytest.mark.parametrize("text", ["好" + "，" * 3_000, "，" * 3_000 + "好", "a" + ",)" * 2_000, "." * 1_000 + "a"])
def test_marks_take_no_time_but_have_their_bound(text: str) -> None:
    pieces = [piece.text for piece in split_sentences(text, 25.0, 400)]

    assert max(map(len, pieces)) <= 400
    assert "".join(pieces) == text


@given(MIXED, st.floats(0.5, 30), st.integers(1, 50))
def test_pieces_keep_both_bounds(text: str, max_seconds: float, max_chars: int) -> None:
    pieces = [piece.text for piece in split_sentences(text, max_seconds, max_chars)]

    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= max_chars for piece in pieces)
