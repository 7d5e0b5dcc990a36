"""What stands on the topics is pinned byte for byte: a changed file here is a change of the public contract."""

import json

import pytest

from schemas.audio import AudioChunk
from schemas.base import Event
from schemas.codec import decode
from schemas.topics import TOPICS
from tests.contract.golden_files import FOLDER, expected, value_of
from tests.contract.samples import BARE, FULL

FILES = expected()
MODELS = {model for topic in TOPICS.values() for model in topic.models if issubclass(model, Event)}


def test_every_model_of_the_topics_is_pinned() -> None:
    assert {type(event) for event in FULL} == MODELS
    assert set(FILES) == {path.name for path in FOLDER.iterdir()}, "run: python -m tests.contract.golden_files"
    assert any(AudioChunk in topic.models for topic in TOPICS.values())


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_pinned(name: str) -> None:
    assert FILES[name] == (FOLDER / name).read_bytes(), "meant? python -m tests.contract.golden_files"


@pytest.mark.parametrize("event", [*FULL, *BARE], ids=lambda event: type(event).__name__)
def test_what_is_read_is_written_back_byte_for_byte(event: Event) -> None:
    suffix = ".json" if event in FULL else ".bare.json"
    value = (FOLDER / f"{type(event).__name__}{suffix}").read_bytes()
    assert decode(type(event), value) == event
    assert value_of(decode(type(event), value)) == value


@pytest.mark.parametrize("event", FULL, ids=lambda event: type(event).__name__)
def test_fields_of_the_future_are_ignored(event: Event) -> None:
    value = json.loads(value_of(event)) | {"field_of_the_future": {"x": 1}}
    assert decode(type(event), json.dumps(value).encode()) == event


def test_event_types_are_told_apart_and_versioned() -> None:
    types = [model.ce_type for model in (*MODELS, AudioChunk)]
    assert len(set(types)) == len(types)
    assert all(name.startswith("voxbus.") and name.rsplit(".v", 1)[1].isdigit() for name in types)


def test_a_failure_has_no_audio_and_a_completion_no_error() -> None:
    completed = json.loads((FOLDER / "RequestCompleted.json").read_bytes())
    failed = json.loads((FOLDER / "RequestCompleted.bare.json").read_bytes())
    assert "error" not in completed["data"]
    assert "audio" not in failed["data"]
    assert failed["data"]["error"]["code"] == "engine_timeout"
