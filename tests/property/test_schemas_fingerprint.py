"""The fingerprint: pinned, the same everywhere, and different as soon as anything audible is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fingerprint import canonical_form, derived_seed, fingerprint
from schemas.requests import SpeechSpec, Style

SPEC = SpeechSpec(
    text="你好,Hello.",
    voice="female1",
    language="zh",
    dialect="mandarin",
    style=Style(oral=1, laugh=2, break_=3),
    speed=6,
    temperature=0.25,
    top_p=0.75,
    top_k=30,
    seed=7,
)
OTHER = {
    "text": "你好,hello.",
    "voice": "male1",
    "language": "en",
    "dialect": "cantonese",
    "style": Style(oral=1, laugh=2, break_=4),
    "speed": 5,
    "temperature": 0.26,
    "top_p": 0.7,
    "top_k": 31,
    "seed": None,
}


def test_it_is_pinned() -> None:
    """A change here makes every stored synthesis unreachable: raise FINGERPRINT_VERSION and say so in CHANGELOG."""
    assert canonical_form(SPEC, engine="espeak", revision="1").decode() == (
        '{"engine":"espeak","revision":"1","spec":{"dialect":"mandarin","language":"zh","seed":7,"speed":6,'
        '"style":{"break":3,"laugh":2,"oral":1},"temperature":0.25,"text":"你好,Hello.","top_k":30,"top_p":0.75,'
        '"voice":"female1"},"version":1}'
    )
    assert (
        fingerprint(SPEC, engine="espeak", revision="1")
        == "05e81e0323a9b3181e19219f681187cc8246318513363e0274434aa50ca6c71f"
    )
    bare = SpeechSpec(text="Hello", voice="female1", language="en", dialect="english")
    assert (
        fingerprint(bare, engine="chattts", revision="r2")
        == "b22f466fe35ce8ffecd9fedc934113c81187d33eb50297cf7d3da4132ddc1070"
    )


def test_every_field_of_the_spec_is_in_it() -> None:
    assert set(OTHER) == set(SpeechSpec.model_fields)


@pytest.mark.parametrize("field", OTHER)
def test_it_changes_with_every_field(field: str) -> None:
    changed = SPEC.model_copy(update={field: OTHER[field]})
    assert fingerprint(changed, engine="e", revision="1") != fingerprint(SPEC, engine="e", revision="1")


@pytest.mark.parametrize("part", ["oral", "laugh", "break_"])
def test_it_changes_with_every_part_of_the_style(part: str) -> None:
    changed = SPEC.model_copy(update={"style": SPEC.style.model_copy(update={part: 0})})
    assert fingerprint(changed, engine="e", revision="1") != fingerprint(SPEC, engine="e", revision="1")


def test_it_changes_with_engine_and_revision() -> None:
    of = {fingerprint(SPEC, engine=engine, revision=revision) for engine in "ab" for revision in "12"}
    assert len(of) == 4


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50), st.floats(0.01, 2))
def test_it_survives_the_wire(text: str, temperature: float) -> None:
    spec = SPEC.model_copy(update={"text": text, "temperature": temperature})
    again = SpeechSpec.model_validate_json(spec.model_dump_json(by_alias=True))
    assert fingerprint(again, engine="e", revision="1") == fingerprint(spec, engine="e", revision="1")


@given(st.from_regex(r"\A[0-9a-f]{64}\Z"))
def test_the_derived_seed_is_a_seed(name: str) -> None:
    assert 0 <= derived_seed(name) < 2**31
    assert derived_seed(name) == derived_seed(name)
