"""The topics table is well-formed: it is what clusters are set up by and what the docs are written from."""

import pytest

from schemas import topics
from schemas.audio import AudioChunk
from schemas.base import Event
from schemas.codes import PERCENT_AT, AudioFormat, ErrorCode, State
from schemas.topics import TOPICS, Topic
from tests.contract.samples import CHUNK, FINGERPRINT, FULL

NAMES = {
    value
    for name, constant in vars(topics).items()
    if name.isupper() and not name.startswith("_")
    for value in (constant if isinstance(constant, tuple) else (constant,))
    if isinstance(value, str)
}


def test_every_name_has_its_row() -> None:
    assert set(TOPICS) == NAMES
    assert all(name == topic.name for name, topic in TOPICS.items())


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_a_row_is_fit_for_kafka(topic: Topic) -> None:
    assert topic.name.startswith("tts.")
    assert set(topic.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert len(topic.name) <= 200  # 249 with the namespace
    assert topic.retention_ms >= 60_000
    assert topic.partitions is None or topic.partitions >= 1


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_events_are_keyed_as_their_topic_says(topic: Topic) -> None:
    keys = {
        "request_id": "order-17:3",
        "fingerprint": FINGERPRINT,
        "partition": "3",
        "endpoint": "crm",
        "any": "order-17:3",
    }
    samples: dict[type, Event | AudioChunk] = {type(event): event for event in FULL} | {AudioChunk: CHUNK}
    for model in topic.models:
        assert samples[model].partition_key == keys[topic.key]


def test_tables_and_their_sources_have_as_many_partitions() -> None:
    for name in (topics.REQUESTS, topics.ADMITTED, topics.OUTCOMES, topics.TICKS):
        assert TOPICS[name].partitions is None


def test_percent_never_falls_along_the_road() -> None:
    assert set(PERCENT_AT) == set(State)
    percents = [PERCENT_AT[state] for state in State]
    assert percents == sorted(percents)
    assert {state for state in State if state.terminal} == {state for state in State if PERCENT_AT[state] == 100}


def test_every_format_has_a_media_type() -> None:
    assert all(audio.media_type.startswith("audio/") for audio in AudioFormat)


def test_codes_are_the_contracts() -> None:
    assert {code.value for code in ErrorCode} == {
        "invalid_request",
        "request_conflict",
        "unsupported_voice",
        "unsupported_dialect",
        "text_not_speakable",
        "deadline_exceeded",
        "gpu_out_of_memory",
        "engine_crashed",
        "engine_timeout",
        "bad_audio",
        "storage_unavailable",
        "internal",
    }
