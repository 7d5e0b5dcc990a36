"""A speech request at the HTTP door, checked and named. Pure: no server is asked."""

import hashlib
import json
from dataclasses import dataclass

from pydantic import ConfigDict, ValidationError

from infra.speech import RefusedError, Speech
from producers.gateway.problems import ProblemError, pointer_of
from schemas.base import utc_now
from schemas.completions import CompletionData, RequestStatus
from schemas.renditions import CachedRendition
from schemas.requests import SpeechSpec, SynthesisRequested


class SpeechBody(SynthesisRequested):
    """A request at the HTTP door: fields it does not know are refused, so that a misspelt one is found at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that can be spoken here."""

    request: SynthesisRequested
    spec: SpeechSpec
    fingerprint: str
    digest: str
    """SHA-256 of the request's content, to tell a repeat from another request under the same name."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A checked request on its way."""

    request: SynthesisRequested
    fingerprint: str
    request_id: str
    """On the bus, in Redis and at dedup."""
    name: str
    """What its client calls it: the id it chose itself, otherwise `request_id`."""
    trace: str | None

    def completion(self, rendition: CachedRendition) -> CompletionData:
        """The end of this request, when its audio was there already."""
        return CompletionData(
            request_id=self.request_id,
            status="completed",
            fingerprint=self.fingerprint,
            cached=True,
            audio=rendition.audio(),
            engine=rendition.engine,
            metadata=self.request.metadata,
        )

    def ended_by(self, end: "CompletionData | RequestStatus") -> bool:
        """Whether an end (or a state) under this id can be that of this request.

        It is another's when the id was taken before by a request with another content, which dedup alone may know.
        """
        return end.fingerprint in (None, self.fingerprint) and (
            end.audio is None or end.audio.format == self.request.format
        )


def read_body(body: bytes) -> SynthesisRequested:
    """The request in a body.

    Raises:
        ProblemError: 422, naming the first field at fault, never its content.
    """
    try:
        return SpeechBody.model_validate_json(body)
    except ValidationError as error:
        raise problem_of(error, body) from None


def problem_of(error: ValidationError, body: bytes) -> ProblemError:
    """The refusal that names the first field at fault, never its content."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    document = json.loads(body) if first["loc"] else None  # only what could be read has a field at fault
    pointer = pointer_of(first["loc"], document, missing=first["type"] == "missing")
    return ProblemError(422, "invalid_request", str(first["msg"]).removeprefix("Value error, "), pointer=pointer)


def check(request: SynthesisRequested, speech: Speech) -> Checked:
    """Resolve what a request asks to hear. Computes for milliseconds when the text is long.

    Raises:
        ProblemError: 422, it cannot be spoken here.
    """
    try:
        spec = speech.spec_of(request)
    except RefusedError as error:
        raise ProblemError(422, error.code, error.message, pointer=error.pointer) from None
    return Checked(request, spec, speech.fingerprint_of(spec), _digest_of(request))


def id_of_key(owner: str, idempotency_key: str, digest: str) -> str:
    """The id of a request with an `Idempotency-Key`.

    It follows from key and body alone, so that a repeat is the same request and another body is another request even
    when nobody remembers the key.
    """
    return f"idem-{name_of_key(owner, idempotency_key)[:32]}-{digest[:24]}"


def name_of_key(owner: str, idempotency_key: str) -> str:
    """Under what a key is remembered."""
    return _sha256(f"{owner}\n{idempotency_key}")


def completion_body(completion: CompletionData, name: str) -> bytes:
    """JSON in the form of `tts.completed` and of the webhook, for the client that calls the request `name`."""
    at = utc_now().isoformat().replace("+00:00", "Z")
    if completion.request_id != name:
        completion = completion.model_copy(update={"request_id": name})
    data = completion.model_dump_json(exclude_none=True)
    return f'{{"type":"speech.{completion.status}","timestamp":"{at}","data":{data}}}'.encode()


def status_body(status: RequestStatus, name: str) -> str:
    """JSON of a state, for the client that calls the request `name`."""
    if status.request_id != name:
        status = status.model_copy(update={"request_id": name})
    return status.model_dump_json(exclude_none=True)


def unknown_request() -> ProblemError:
    """No such request, or not yours."""
    return ProblemError(404, "unknown_request", "no such request, or it is forgotten by now")


def other_content() -> ProblemError:
    """A known id came with another content."""
    detail = "this request_id is taken by a request with another content"
    return ProblemError(409, "request_conflict", detail, pointer="/request_id")


def _digest_of(request: SynthesisRequested) -> str:
    content = request.model_dump(mode="json", by_alias=True)
    return _sha256(json.dumps(content, sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
