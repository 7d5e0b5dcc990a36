"""The door: what a message on `tts.requests` is worth. Pure; the catalogue and the engine come as arguments."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.voices import Catalogue
from schemas.base import RequestId
from schemas.codec import DecodeError, decode
from schemas.codes import ErrorCode
from schemas.fingerprint import fingerprint
from schemas.requests import CallbackUrl, Metadata, SpeechSpec, SynthesisRequested
from schemas.text import canonical_text, is_speakable, primary_language

_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)
_CALLBACK: TypeAdapter[str] = TypeAdapter(CallbackUrl)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)


class RefusedError(Exception):
    """A request that cannot be served. `pointer` is a JSON pointer to the field at fault."""

    def __init__(self, code: ErrorCode, message: str, pointer: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Sender:
    """Who can be told of a refusal: what is usable of a message that as a whole is not."""

    request_id: str | None = None
    callback_url: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    """The engine and the voices requests are checked against."""

    catalogue: Catalogue
    engine: str
    revision: str

    def spec_of(self, request: SynthesisRequested) -> SpeechSpec:
        """Everything that changes the sound, resolved.

        Raises:
            RefusedError: no such voice, language or dialect, or nothing in the text has a sound.
        """
        if request.voice not in self.catalogue.voices:
            known = ", ".join(sorted(self.catalogue.voices))
            raise RefusedError(ErrorCode.UNSUPPORTED_VOICE, f"no such voice; there are: {known}", "/voice")
        language, dialect = self._tongue(request)
        text = canonical_text(request.text, language)
        if not is_speakable(text):
            raise RefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, "nothing in the text can be spoken", "/text")
        return SpeechSpec(
            text=text,
            voice=request.voice,
            language=language,
            dialect=dialect,
            style=request.style,
            speed=request.speed,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
        )

    def fingerprint_of(self, spec: SpeechSpec) -> str:
        """The fingerprint under this engine and revision."""
        return fingerprint(spec, engine=self.engine, revision=self.revision)

    def _tongue(self, request: SynthesisRequested) -> tuple[str, str]:
        dialects = self.catalogue.dialects
        named = request.dialect
        if named is not None and named not in dialects:
            known = ", ".join(sorted(dialects))
            raise RefusedError(ErrorCode.UNSUPPORTED_DIALECT, f"no such dialect; there are: {known}", "/dialect")
        if named is not None and request.language is None:
            language = dialects[named]
        else:
            language = primary_language(request.language, request.text)
        if language not in self.catalogue.languages:
            known = ", ".join(sorted(self.catalogue.languages))
            raise RefusedError(ErrorCode.INVALID_REQUEST, f"no such language; there are: {known}", "/language")
        dialect = named or self.catalogue.default_dialect(language) or ""
        if dialects.get(dialect) != language:
            message = "the dialect does not belong to the language"
            raise RefusedError(ErrorCode.UNSUPPORTED_DIALECT, message, "/dialect")
        if not self.catalogue.speaks(self.engine, dialect):
            message = f"engine {self.engine} does not speak {dialect}"
            raise RefusedError(ErrorCode.UNSUPPORTED_DIALECT, message, "/dialect")
        return language, dialect


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
