"""Requests before they are sent: checked against the schema, with an id, and errors that name the field."""

import json
import re
from collections.abc import Mapping
from typing import TypedDict

from pydantic import ValidationError
from ulid import ULID

from producers.errors import RequestInvalidError
from schemas.requests import SynthesisRequested

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class RequestOptions(TypedDict, total=False):
    """What a request can say beside its text; see `schemas.requests.SynthesisRequested` for ranges and defaults."""

    request_id: str
    """Given, so that publishing again changes nothing; a fresh ULID when absent."""
    voice: str
    language: str
    """BCP 47; recognised from the text when absent."""
    dialect: str
    style: Mapping[str, int]
    """`oral` 0 to 9, `laugh` 0 to 2, `break` 0 to 7; only ChatTTS listens to it."""
    speed: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    format: str
    """wav, flac, mp3 or opus."""
    priority: str
    """interactive or bulk."""
    callback_url: str
    expires_in_s: int
    metadata: Mapping[str, object]
    """At most 4 KB as JSON; comes back in the completion."""


def new_request_id() -> str:
    """A fresh ULID: 26 characters that sort by time."""
    return str(ULID())


def usable_id(value: bytes) -> str | None:
    """The request id in a message, whatever else is wrong with it; None when there is none that could be one."""
    try:
        request_id = json.loads(value)["request_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return request_id if isinstance(request_id, str) and _ID.fullmatch(request_id) else None


def unknown_fields(data: Mapping[str, object]) -> list[str]:
    """Names that mean nothing to voxbus, most likely misspelt."""
    return sorted(set(data) - set(SynthesisRequested.model_fields))


def draft(data: Mapping[str, object]) -> SynthesisRequested:
    """A checked request with an id.

    Raises:
        RequestInvalidError: names the first field at fault, never its content.
    """
    try:
        request = SynthesisRequested.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise RequestInvalidError(_plain(first["msg"]), ".".join(str(part) for part in first["loc"])) from None
    return request if request.request_id else request.model_copy(update={"request_id": new_request_id()})


def draft_of(text: str, options: RequestOptions) -> SynthesisRequested:
    """A checked request from a call's arguments.

    Raises:
        RequestInvalidError: a name that is no field, or a value out of range.
    """
    for name in unknown_fields(options):
        raise RequestInvalidError("is not a field of a request", name)
    # None says the same as leaving an option out.
    return draft({"text": text, **{name: value for name, value in options.items() if value is not None}})


def fields_of_line(line: bytes) -> dict[str, object]:
    """The JSON object on one line of a file.

    Raises:
        RequestInvalidError: not UTF-8, not JSON, or not an object.
    """
    try:
        data = json.loads(line)
    except UnicodeDecodeError:
        raise RequestInvalidError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RequestInvalidError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RequestInvalidError("is nested too deeply") from None
    if not isinstance(data, dict):
        raise RequestInvalidError("is not a JSON object")
    return data


def _plain(message: str) -> str:
    """Without the words pydantic puts before a validator's own."""
    return message.removeprefix("Value error, ")
