"""What a request message is worth."""

import json

import pytest

from infra.speech import RefusedError, Speech
from infra.voices import load_catalogue
from schemas.codec import context_of, new_traceparent
from schemas.codes import ErrorCode
from schemas.requests import SynthesisRequested
from synth_consumer.dedup.door import (
    digest_of,
    read_request,
    sender_of,
    with_request_id,
)

_SPEECH = Speech(load_catalogue(), "espeak", "1")


def _request(**fields: object) -> SynthesisRequested:
    return SynthesisRequested.model_validate({"text": "Hello", **fields})


def test_what_is_left_out_comes_from_text_and_catalogue() -> None:
    spec = _SPEECH.spec_of(_request(text="你好 ， 世界"))
    assert (spec.language, spec.dialect, spec.seed) == ("zh", "mandarin", None)
    assert _SPEECH.spec_of(_request(text="Hello")).dialect == "english"
    assert _SPEECH.spec_of(_request(text="Hello", dialect="cantonese")).language == "zh"


def test_equal_sound_equal_fingerprint_whatever_the_format() -> None:
    one, two = _request(text="Hello  there 🎉", format="mp3"), _request(text="Hello there", format="wav")
    assert _SPEECH.fingerprint_of(_SPEECH.spec_of(one)) == _SPEECH.fingerprint_of(_SPEECH.spec_of(two))
    other = Speech(_SPEECH.catalogue, "espeak", "2")
    assert other.fingerprint_of(other.spec_of(one)) != _SPEECH.fingerprint_of(_SPEECH.spec_of(one))


def test_an_engine_speaks_only_its_dialects() -> None:
    chattts = Speech(_SPEECH.catalogue, "chattts", "1")
    with pytest.raises(RefusedError) as refused:
        chattts.spec_of(_request(dialect="cantonese", text="你好"))
    assert (refused.value.code, refused.value.pointer) == (ErrorCode.UNSUPPORTED_DIALECT, "/dialect")


@pytest.mark.parametrize("value", [None, b"", b"nothing", b"\xff", b"[1]", b"[" * 100_000, b'{"text": "a"'])
def test_what_cannot_be_read_names_nobody(value: bytes | None) -> None:
    with pytest.raises(RefusedError):
        read_request(value, max_bytes=300_000)
    assert sender_of(value).request_id is None


def test_a_valid_request_may_still_be_too_large() -> None:
    value = json.dumps({"text": "Hello", "unknown": "x" * 70_000}).encode()
    with pytest.raises(RefusedError, match="larger than"):
        read_request(value, max_bytes=65_536)


def test_only_what_is_valid_of_a_bad_message_is_used() -> None:
    bad = {"request_id": "good", "callback_url": "file:///etc/passwd", "metadata": [1]}
    sender = sender_of(json.dumps(bad).encode())
    assert (sender.request_id, sender.callback_url, sender.metadata) == ("good", None, None)


def test_the_digest_knows_content_not_spelling() -> None:
    one = SynthesisRequested.model_validate_json('{"request_id": "a", "text": "Hi", "metadata": {"x": 1, "y": 2}}')
    two = SynthesisRequested.model_validate_json('{"metadata": {"y": 2, "x": 1}, "text": "Hi", "voice": "female1"}')
    assert digest_of(one) == digest_of(two)
    assert digest_of(one) != digest_of(one.model_copy(update={"text": "Ho"}))


def test_an_id_is_written_into_the_message() -> None:
    assert json.loads(with_request_id('{"text": "你好"}'.encode(), "req-1")) == {"text": "你好", "request_id": "req-1"}


def _nested(depth: int) -> dict[str, object]:
    return {"x": _nested(depth - 1)} if depth > 1 else {}


def test_metadata_is_bounded_in_depth_and_is_json() -> None:
    assert _request(metadata=_nested(32)).metadata
    for bad in (_nested(33), {"x": float("nan")}, {"x": [float("inf")]}):
        with pytest.raises(ValueError, match="metadata"):
            _request(metadata=bad)


def test_a_text_that_explodes_when_written_out_is_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        _SPEECH.spec_of(_request(text="\ufdfa" * 10_000, language="en"))
    assert (refused.value.code, refused.value.pointer) == (ErrorCode.INVALID_REQUEST, "/text")


@pytest.mark.parametrize("given", [b"x" * 2_000_000, b"00-zz", b"00-" + b"a" * 32 + b"-" + b"b" * 16])
def test_a_traceparent_that_is_none_is_not_carried_on(given: bytes) -> None:
    assert context_of([("traceparent", given)]).traceparent is None
    good = new_traceparent()
    assert context_of([("traceparent", good.encode())]).traceparent == good
