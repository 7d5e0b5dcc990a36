"""CloudEvents 1.0, Kafka protocol binding, binary mode: attributes in headers, data in the value.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

import re
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from schemas.audio import AudioChunk
from schemas.base import Event, utc_now

Headers = tuple[tuple[str, bytes], ...]

_JSON = b"application/json"
_SPEC_VERSION = b"1.0"
_TRACEPARENT = "traceparent"
# W3C Trace Context; a later version may append more, of which nothing is known.
_TRACEPARENT_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?")
_TRACEPARENT_BYTES = 256


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka record, ready to send."""

    key: bytes | None
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Context:
    """What travels beside the data: the trace, and extension attributes such as `callbackurl`."""

    traceparent: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)


class DecodeError(Exception):
    """A message cannot be read. `pointer` is a JSON pointer to the field at fault, "" for the whole."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


EventT = TypeVar("EventT", bound=Event)


def new_traceparent() -> str:
    """A fresh W3C trace context, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def encode(
    event: Event,
    *,
    source: str,
    context: Context | None = None,
    time: datetime | None = None,
    event_id: str | None = None,
) -> Message:
    """Make the record of an event.

    Args:
        event: the data.
        source: which stage says so, such as "voxbus/dedup".
        context: trace and extensions that go along.
        time: when it happened; now, when absent.
        event_id: CloudEvents `id`; a fresh UUID when absent.
    """
    headers = _attributes(event.ce_type, source, context or Context(), time=time, event_id=event_id, content_type=_JSON)
    value = event.model_dump_json(by_alias=True, exclude_none=True).encode()
    return Message(event.partition_key.encode() or None, value, headers)


def decode(model: type[EventT], value: bytes | None) -> EventT:
    """Read the JSON data of a record.

    Raises:
        DecodeError: not JSON, or not the model; names the first field at fault, never its content.
    """
    if value is None:
        raise DecodeError("the message has no value")
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise DecodeError(first["msg"].removeprefix("Value error, "), pointer) from None


def encode_chunk(chunk: AudioChunk, *, source: str, context: Context | None = None) -> Message:
    """Make the record of an audio chunk: the value is the PCM itself."""
    extensions = {
        "jobid": chunk.job_id,
        "takeid": chunk.take_id,
        "index": str(chunk.index),
        "samplerate": str(chunk.sample_rate),
    }
    context = context or Context()
    context = Context(context.traceparent, {**context.extensions, **extensions})
    # Deterministic: a chunk published twice is the same event.
    event_id = f"{chunk.take_id}:{chunk.index}"
    headers = _attributes(
        chunk.ce_type, source, context, time=None, event_id=event_id, content_type=chunk.content_type.encode()
    )
    return Message(chunk.fingerprint.encode(), chunk.pcm, headers)


def decode_chunk(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> AudioChunk:
    """Read an audio chunk.

    Raises:
        DecodeError: an attribute is missing or not a number, or the PCM is not whole samples.
    """
    attributes = dict(headers)
    try:
        chunk = AudioChunk(
            fingerprint=(key or b"").decode(),
            job_id=attributes["ce_jobid"].decode(),
            take_id=attributes["ce_takeid"].decode(),
            index=int(attributes["ce_index"]),
            sample_rate=int(attributes["ce_samplerate"]),
            pcm=value or b"",
        )
    except KeyError as error:
        raise DecodeError(f"header {error.args[0]} is missing") from None
    except ValueError:
        raise DecodeError("an attribute of the chunk is not readable") from None
    if len(chunk.pcm) % 2:
        raise DecodeError("the PCM ends within a sample")
    return chunk


def event_type(headers: Iterable[tuple[str, bytes]]) -> str | None:
    """The CloudEvents `type` of a record; None for a bare JSON message."""
    for name, value in headers:
        if name == "ce_type":
            return value.decode("utf-8", "replace")
    return None


def context_of(headers: Iterable[tuple[str, bytes]]) -> Context:
    """Trace and extension attributes of a record, to go along with what follows from it."""
    core = {"ce_id", "ce_type", "ce_source", "ce_specversion", "ce_time"}
    extensions: dict[str, str] = {}
    traceparent = None
    for name, value in headers:
        if name == _TRACEPARENT:
            given = value[:_TRACEPARENT_BYTES].decode("ascii", "replace")
            # Anything else is not carried on: it would go into rows and every message that follows.
            traceparent = given if _TRACEPARENT_FORM.fullmatch(given) else None
        elif name.startswith("ce_") and name not in core:
            extensions[name[3:]] = value.decode("utf-8", "replace")
    return Context(traceparent, extensions)


def _attributes(
    ce_type: str, source: str, context: Context, *, time: datetime | None, event_id: str | None, content_type: bytes
) -> Headers:
    headers = [
        ("ce_id", (event_id or str(uuid.uuid4())).encode()),
        ("ce_type", ce_type.encode()),
        ("ce_source", source.encode()),
        ("ce_specversion", _SPEC_VERSION),
        ("ce_time", (time or utc_now()).isoformat().replace("+00:00", "Z").encode()),
        ("content-type", content_type),
    ]
    if context.traceparent:
        headers.append((_TRACEPARENT, context.traceparent.encode()))
    headers.extend((f"ce_{name}", value.encode()) for name, value in context.extensions.items())
    return tuple(headers)
