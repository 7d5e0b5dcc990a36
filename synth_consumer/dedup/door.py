"""The door: what a message on `tts.requests` is worth. Pure; what it asks to hear is resolved in `infra.speech`."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.speech import RefusedError
from schemas.base import RequestId
from schemas.codec import DecodeError, decode
from schemas.codes import ErrorCode
from schemas.requests import CallbackUrl, Metadata, SynthesisRequested

_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)
_CALLBACK: TypeAdapter[str] = TypeAdapter(CallbackUrl)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who can be told of a refusal: what is usable of a message that as a whole is not."""

    request_id: str | None = None
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None


def read_request(value: bytes | None, *, max_bytes: int) -> SynthesisRequested:
    """A request as its sender wrote it, checked field by field.

    Raises:
        RefusedError: not JSON, not a request, or too large.
    """
    try:
        request = decode(SynthesisRequested, value)
    except DecodeError as error:
        raise RefusedError(ErrorCode.INVALID_REQUEST, str(error), error.pointer) from None
    if value is not None and len(value) > max_bytes:
        raise RefusedError(ErrorCode.INVALID_REQUEST, f"the message is larger than {max_bytes} bytes", "")
    return request


def sender_of(value: bytes | None) -> Sender:
    """What can be used of a message that does not validate; nothing of one that is not a JSON object."""
    try:
        data = json.loads((value or b"").decode("utf-8"))
    except (ValueError, RecursionError):
        return Sender()
    if not isinstance(data, dict):
        return Sender()
    request_id = _valid(_REQUEST_ID, data.get("request_id"))
    return Sender(request_id, _valid(_CALLBACK, data.get("callback_url")), _valid(_METADATA, data.get("metadata")))


def digest_of(request: SynthesisRequested) -> str:
    """SHA-256 of a request's content without its id: equal for every way of writing the same request."""
    content = request.model_dump(mode="json", by_alias=True, exclude={"request_id"})
    written = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()


def digest_of_bytes(value: bytes | None) -> str:
    """SHA-256 of a message that is no request."""
    return hashlib.sha256(b"refused\n" + (value or b"")).hexdigest()


def with_request_id(value: bytes, request_id: str) -> bytes:
    """The same JSON object with its id in it."""
    data = json.loads(value.decode("utf-8"))
    return json.dumps({**data, "request_id": request_id}, ensure_ascii=False, separators=(",", ":")).encode()


def _valid(adapter: TypeAdapter[Any], value: object) -> Any:
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError:
        return None
