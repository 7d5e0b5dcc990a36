"""The voice catalogue: the built-in one is whole, another one is checked when it is read."""

from pathlib import Path

import pytest

from infra.errors import UserError
from infra.voices import load_catalogue

GOOD = """
[dialects]
mandarin = "zh"
[engines]
espeak = ["mandarin"]
[voices.v]
description = "d"
espeak = { variant = "f1" }
"""


def test_the_built_in_catalogue_serves_chinese_and_english() -> None:
    catalogue = load_catalogue()
    assert {"zh", "en"} <= catalogue.languages
    assert catalogue.default_dialect("zh") == "mandarin"
    assert catalogue.default_dialect("en") == "english"
    assert catalogue.default_dialect("xx") is None
    assert catalogue.speaks("espeak", "cantonese")
    assert not catalogue.speaks("chattts", "cantonese")
    assert not catalogue.speaks("unknown", "mandarin")


def test_every_dialect_an_engine_speaks_is_known() -> None:
    catalogue = load_catalogue()
    assert {dialect for dialects in catalogue.engines.values() for dialect in dialects} <= set(catalogue.dialects)


def test_every_voice_can_be_spoken_by_espeak_and_chattts() -> None:
    for voice in load_catalogue().voices.values():
        assert {"espeak", "chattts"} <= set(voice.engine_params)


def test_a_file_takes_its_place(tmp_path: Path) -> None:
    file = tmp_path / "voices.toml"
    file.write_text(GOOD)
    catalogue = load_catalogue(str(file))
    assert catalogue.voices["v"].engine_params["espeak"]["variant"] == "f1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("[dialects", "not TOML"),
        (GOOD.replace("[voices.v]", "[other.v]"), "voices"),
        ("[dialects]\n[engines]\n[voices]\n", "voices"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    file = tmp_path / "voices.toml"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=said) as caught:
        load_catalogue(str(file))
    assert str(file) in str(caught.value)
