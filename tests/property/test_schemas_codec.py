"""Whatever can be said comes back as it was said; whatever cannot be read is refused by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audio import AudioChunk
from schemas.codec import (
    Context,
    DecodeError,
    Headers,
    context_of,
    decode,
    decode_chunk,
    encode,
    encode_chunk,
    event_type,
    new_traceparent,
)
from schemas.codes import AudioFormat, ErrorCode, Priority
from schemas.dead_letters import MAX_BYTES, dead_letter, original_headers, read_dead_letter
from schemas.jobs import SynthesisJob
from schemas.requests import MAX_SEED, MAX_TEXT_CHARS, SpeechSpec, Style, SynthesisRequested
from tests.contract.samples import FINGERPRINT, MOMENT

words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
styles = st.builds(Style, oral=st.integers(0, 9), laugh=st.integers(0, 2), break_=st.integers(0, 7))
requests = st.builds(
    SynthesisRequested,
    request_id=st.none() | st.from_regex(r"\A[A-Za-z0-9_.:-]{1,128}\Z"),
    text=words,
    language=st.none() | st.sampled_from(["zh", "en", "zh-CN", "en-US"]),
    style=styles,
    speed=st.integers(0, 9),
    temperature=st.floats(0, 2, exclude_min=True),
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=st.integers(1, 1000),
    seed=st.none() | st.integers(0, MAX_SEED),
    format=st.sampled_from(AudioFormat),
    priority=st.sampled_from(Priority),
    callback_url=st.none() | st.just("https://example.com/hook"),
    metadata=st.dictionaries(names, json_values, max_size=3),
)
chunks = st.builds(
    AudioChunk,
    fingerprint=st.from_regex(r"\A[0-9a-f]{64}\Z"),
    job_id=names,
    take_id=names,
    index=st.integers(0, 2**31),
    sample_rate=st.integers(8_000, 192_000),
    pcm=st.binary(max_size=200).map(lambda pcm: pcm[: len(pcm) // 2 * 2]),
)
contexts = st.builds(
    Context,
    traceparent=st.none() | st.builds(new_traceparent),
    extensions=st.dictionaries(names.map("x".__add__), words, max_size=3),
)


@given(requests)
def test_a_request_comes_back_as_it_was(request: SynthesisRequested) -> None:
    message = encode(request, source="test")
    assert decode(SynthesisRequested, message.value) == request
    assert message.key == (request.request_id.encode() if request.request_id else None)


@given(words, styles, st.none() | st.integers(0, MAX_SEED))
def test_a_job_comes_back_as_it_was(text: str, style: Style, seed: int | None) -> None:
    spec = SpeechSpec(text=text, voice="v", language="zh", dialect="mandarin", style=style, seed=seed)
    job = SynthesisJob(
        job_id="j",
        fingerprint=FINGERPRINT,
        spec=spec,
        formats=(AudioFormat.OPUS,),
        priority=Priority.BULK,
        request_id="r",
        enqueued_at=MOMENT,
    )
    assert decode(SynthesisJob, encode(job, source="test").value) == job


@given(chunks, contexts)
def test_a_chunk_comes_back_as_it_was(chunk: AudioChunk, context: Context) -> None:
    message = encode_chunk(chunk, source="test", context=context)
    assert decode_chunk(message.key, message.value, message.headers) == chunk
    assert event_type(message.headers) == AudioChunk.ce_type
    assert context_of(message.headers).traceparent == context.traceparent


@given(chunks)
def test_a_chunk_published_twice_is_the_same_event(chunk: AudioChunk) -> None:
    first, second = (dict(encode_chunk(chunk, source="test").headers)["ce_id"] for _ in range(2))
    assert first == second


@given(contexts)
def test_trace_and_extensions_go_along(context: Context) -> None:
    message = encode(SynthesisRequested(text="a"), source="test", context=context)
    assert context_of(message.headers) == context


@given(st.binary())
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(SynthesisRequested, value)


@given(st.binary(max_size=100), st.lists(st.tuples(names, st.binary(max_size=20)), max_size=5))
def test_any_headers_are_read_or_refused(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    marked: Headers = tuple((f"ce_{name}", content) for name, content in headers)
    context_of(marked)
    with pytest.raises(DecodeError):
        decode_chunk(b"k", value, marked)


@pytest.mark.parametrize("name", ["jobid", "takeid", "index", "samplerate"])
@pytest.mark.parametrize("broken", [None, b"\xff"])
def test_a_chunk_without_an_attribute_is_refused(name: str, broken: bytes | None) -> None:
    chunk = AudioChunk(FINGERPRINT, "j", "t", 0, 24_000, b"\0\0")
    kept = [(key, value) for key, value in encode_chunk(chunk, source="test").headers if key != f"ce_{name}"]
    headers = kept if broken is None else [*kept, (f"ce_{name}", broken)]
    with pytest.raises(DecodeError):
        decode_chunk(FINGERPRINT.encode(), b"\0\0", headers)


def test_half_a_sample_is_refused() -> None:
    message = encode_chunk(AudioChunk(FINGERPRINT, "j", "t", 0, 24_000, b"\0\0"), source="test")
    with pytest.raises(DecodeError, match="within a sample"):
        decode_chunk(message.key, b"\0\0\0", message.headers)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"text": ""}, "/text"),
        ({"text": "a" * (MAX_TEXT_CHARS + 1)}, "/text"),
        ({"request_id": "with space"}, "/request_id"),
        ({"request_id": "a" * 129}, "/request_id"),
        ({"request_id": "line\n"}, "/request_id"),
        ({"callback_url": "ftp://example.com"}, "/callback_url"),
        ({"callback_url": "/relative"}, "/callback_url"),
        ({"callback_url": "https://user:secret@example.com"}, "/callback_url"),
        ({"callback_url": "https://example.com:99999/"}, "/callback_url"),
        ({"speed": 10}, "/speed"),
        ({"style": {"oral": 10}}, "/style/oral"),
        ({"style": {"break": 8}}, "/style/break"),
        ({"temperature": 0}, "/temperature"),
        ({"top_p": 1.5}, "/top_p"),
        ({"top_k": 0}, "/top_k"),
        ({"seed": -1}, "/seed"),
        ({"seed": MAX_SEED + 1}, "/seed"),
        ({"format": "aac"}, "/format"),
        ({"priority": "urgent"}, "/priority"),
        ({"metadata": {"k": "v" * 5_000}}, "/metadata"),
        ({"expires_in_s": 0}, "/expires_in_s"),
    ],
)
def test_a_wrong_field_is_named_and_its_content_is_not(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(SynthesisRequested, json.dumps({"text": "ok"} | change).encode())
    assert caught.value.pointer == pointer
    assert "secret" not in str(caught.value)


@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(names, st.binary(max_size=20)), max_size=4),
    reason=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=2_000),
    code=st.sampled_from(ErrorCode),
)
def test_a_dead_letter_keeps_the_message_and_says_why(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], reason: str, code: ErrorCode
) -> None:
    letter = dead_letter(code, reason, pointer="/text", stage="dedup", topic="tts.requests", partition=1, offset=2**40)
    message = letter.message_of(key, value, headers)
    assert (message.key, message.value, original_headers(message.headers)) == (key, value or b"", tuple(headers))
    read = read_dead_letter(message.headers)
    assert (read.code, read.topic, read.partition, read.offset, read.at) == (code, "tts.requests", 1, 2**40, letter.at)
    assert read.message == reason[:1_000]
    assert not read.truncated


def test_a_dead_letter_of_a_dead_letter_has_one_reason() -> None:
    first = dead_letter(ErrorCode.INTERNAL, "a", stage="s", topic="t", partition=0, offset=0).message_of(None, b"", ())
    second = dead_letter(ErrorCode.BAD_AUDIO, "b", stage="s", topic="t", partition=0, offset=1)
    headers = second.message_of(None, b"", first.headers).headers
    assert len(headers) == len({name for name, _ in headers})
    assert read_dead_letter(headers).code is ErrorCode.BAD_AUDIO


def test_a_giant_leaves_its_head_and_its_measure() -> None:
    value = b"x" * (MAX_BYTES + 1)
    letter = dead_letter(ErrorCode.INVALID_REQUEST, "too large", stage="s", topic="t", partition=0, offset=0)
    message = letter.message_of(b"k", value, ())
    read = read_dead_letter(message.headers)
    assert len(message.value) < MAX_BYTES
    assert value.startswith(message.value)
    assert (read.truncated, read.value_bytes) == (True, len(value))


KAFKAS_LIMIT = 1_048_576  # of a producer's request, and about that of a broker's record


@given(
    key=st.sampled_from([0, 100, 2_000_000]),
    value=st.sampled_from([0, 500_000, 2_000_000]),
    headers=st.lists(
        st.tuples(st.sampled_from([1, 300_000]), st.sampled_from([0, 10, 300_000, 1_000_000])), max_size=5
    ),
    many=st.sampled_from([0, 100_000]),
    most=st.sampled_from([0, 16_384, 131_072, MAX_BYTES]),
)
def test_a_dead_letter_is_never_larger_than_kafka_takes(
    key: int, value: int, headers: list[tuple[int, int]], many: int, most: int
) -> None:
    """Whichever part of the message is too large."""
    letter = dead_letter(
        ErrorCode.INVALID_REQUEST, "é" * 2_000, pointer="/é" * 10_000, stage="s", topic="t" * 249, partition=0, offset=0
    )
    original = [("h" * name, b"v" * size) for name, size in headers] + [("a", b"")] * many
    message = letter.message_of(b"k" * key, b"x" * value, original, most_bytes=most)
    whole = key + value + sum(len(name) + len(content) for name, content in original)
    size = len(message.key or b"") + len(message.value)
    size += sum(len(name.encode()) + len(content) + 10 for name, content in message.headers)
    assert size < KAFKAS_LIMIT - 100_000
    assert size < most + 16_384
    read = read_dead_letter(message.headers)
    if not read.truncated:
        assert whole <= most
        assert (message.key, message.value) == (b"k" * key, b"x" * value)
        assert original_headers(message.headers) == tuple(original)


def test_what_is_no_dead_letter_is_refused() -> None:
    with pytest.raises(ValueError, match="not a dead letter"):
        read_dead_letter((("ce_id", b"1"),))
