"""The AsyncAPI 3 document of the bus, from `schemas.topics` and the models."""

from typing import Any

import yaml
from pydantic.json_schema import models_json_schema

from schemas import topics
from schemas.audio import AudioChunk
from schemas.base import Event
from schemas.topics import TOPICS, Topic

_CLOUDEVENTS = {
    "ce_id": "CloudEvents `id`.",
    "ce_type": "CloudEvents `type`.",
    "ce_source": "Who says so, such as `voxbus/dedup`.",
    "ce_specversion": "`1.0`.",
    "ce_time": "When it happened, RFC 3339.",
    "traceparent": "W3C trace context; goes along through every stage.",
}
_CHUNK = {
    "ce_jobid": "The job.",
    "ce_takeid": "The take.",
    "ce_index": "0, 1, 2, … without gap within a take; decimal.",
    "ce_samplerate": "Samples a second; decimal.",
}
_DEAD_LETTER = {
    "voxbus_dlq_code": "Why, from the closed list of codes.",
    "voxbus_dlq_message": "Why, in words.",
    "voxbus_dlq_pointer": "JSON pointer to the field at fault; empty for the whole message.",
    "voxbus_dlq_stage": "Who could not handle it.",
    "voxbus_dlq_topic": "Where it came from, without namespace.",
    "voxbus_dlq_partition": "Where it came from.",
    "voxbus_dlq_offset": "Where it came from.",
    "voxbus_dlq_at": "When, RFC 3339.",
    "voxbus_dlq_truncated": "`true`: too large, only its head is here.",
    "voxbus_dlq_value_bytes": "Length of the whole value.",
    "voxbus_dlq_value_sha256": "SHA-256 of the whole value.",
}
_ABOUT = {
    topics.REQUESTS: "What clients ask for. A bare JSON value without any header is taken as well.",
    topics.ADMITTED: "Requests that passed the door, keyed so that equal ones meet.",
    topics.JOBS_INTERACTIVE: "Work for the device slots; goes first.",
    topics.JOBS_BULK: "Work for the device slots; keeps a guaranteed share.",
    topics.AUDIO: "Takes while they are made: chunks of PCM, and their end.",
    topics.TRANSCODES: "Further formats of stored syntheses.",
    topics.OUTCOMES: "What became of a synthesis.",
    topics.STATUS: "Where each request is; the last event of a request is terminal.",
    topics.COMPLETED: "How each request ended. The value is byte for byte the webhook's body.",
    topics.DELIVERIES: "Every attempt to deliver a webhook.",
    topics.ENDPOINTS: "Which named webhook endpoints are disabled or failing; the newest of a name holds.",
    topics.DEAD_LETTERS: "What could not be handled, whole, with its reason in headers.",
    topics.TICKS: "The clock of the tables; internal.",
    topics.CONTROL: "Word to the workers, such as that nobody waits for a job any more; internal.",
}
# What a program outside of voxbus writes (`receive`: voxbus receives it) and reads.
_WRITTEN_BY_CLIENTS = (topics.REQUESTS,)
_READ_BY_CLIENTS = (topics.STATUS, topics.COMPLETED, topics.AUDIO, topics.DELIVERIES, topics.DEAD_LETTERS)


def document() -> str:
    """The YAML text."""
    models = sorted({m for topic in TOPICS.values() for m in topic.models if m is not AudioChunk}, key=_name)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models if issubclass(model, Event)],
        ref_template="#/components/schemas/{model}",
    )
    content = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "voxbus",
            "version": "0.1.0",
            "description": "Text-to-speech over Kafka: requests in, audio in object storage and signed webhooks out. "
            "CloudEvents 1.0, Kafka protocol binding, binary mode. Readers ignore fields they do not know.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_identifier(topic.name): _channel(topic) for topic in TOPICS.values()},
        "operations": {
            **{f"take_{_identifier(name)}": _operation("receive", name) for name in _WRITTEN_BY_CLIENTS},
            **{f"tell_{_identifier(name)}": _operation("send", name) for name in _READ_BY_CLIENTS},
        },
        "components": {
            "messages": {
                **{_name(model): _event_message(model) for model in models if issubclass(model, Event)},
                "AudioChunk": _chunk_message(),
                "DeadLetter": _dead_letter_message(),
            },
            "schemas": schemas["$defs"],
        },
    }
    head = "# Made from schemas/ by docs/generate.py; do not edit.\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _name(model: type) -> str:
    return model.__name__


def _identifier(topic: str) -> str:
    return topic.removeprefix("tts.").replace(".", "_")


def _about(name: str) -> str:
    if name in topics.DELIVERY_RETRIES:
        return "Webhooks that wait for their next attempt; internal."
    return _ABOUT[name]


def _channel(topic: Topic) -> dict[str, Any]:
    names = [_name(model) for model in topic.models] or ["DeadLetter"]
    key = "any" if topic.key == "any" else f"the {topic.key.replace('_', ' ')}"
    kafka: dict[str, Any] = {
        "bindingVersion": "0.5.0",
        "topic": topic.name,
        "topicConfiguration": {"cleanup.policy": [topic.cleanup_policy], "retention.ms": topic.retention_ms},
    }
    if topic.partitions:
        kafka["partitions"] = topic.partitions
    return {
        "address": topic.name,
        "description": f"{_about(topic.name)} Key: {key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": kafka},
    }


def _operation(action: str, topic: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{_identifier(topic)}"}}


def _headers(named: dict[str, str]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string", "description": d} for name, d in named.items()}}


def _event_message(model: type[Event]) -> dict[str, Any]:
    return {
        "name": model.ce_type,
        "title": _name(model),
        "summary": (model.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "headers": _headers(_CLOUDEVENTS),
        "payload": {"$ref": f"#/components/schemas/{_name(model)}"},
    }


def _chunk_message() -> dict[str, Any]:
    return {
        "name": AudioChunk.ce_type,
        "title": "AudioChunk",
        "summary": (AudioChunk.__doc__ or "").partition("\n")[0],
        "description": "The value is the PCM itself: signed 16-bit little-endian, mono.",
        "contentType": AudioChunk.content_type,
        "headers": _headers(_CLOUDEVENTS | _CHUNK),
        "payload": {"type": "string", "format": "binary"},
    }


def _dead_letter_message() -> dict[str, Any]:
    return {
        "name": "dead letter",
        "title": "DeadLetter",
        "summary": "A message that could not be handled; key, value and headers as they were.",
        "headers": _headers(_DEAD_LETTER),
        "payload": {"description": "Whatever the original was."},
    }
