"""What happens to a speech request at the HTTP door, whichever route it came by.

Checked, fingerprinted, answered from the cache or put on the bus. The steps that decide are pure functions; this
module puts them in order.
"""

import hashlib
import json
from dataclasses import dataclass

from pydantic import ConfigDict, ValidationError
from ulid import ULID

from infra.speech import RefusedError, Speech
from producers.gateway.bus_door import BusDoor
from producers.gateway.cache import Cache
from producers.gateway.problems import ProblemError
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, encode, new_traceparent
from schemas.completions import CompletionData
from schemas.renditions import CachedRendition
from schemas.requests import SpeechSpec, SynthesisRequested

SOURCE = "voxbus/gateway"


class SpeechBody(SynthesisRequested):
    """A request at the HTTP door: fields it does not know are refused, so that a misspelt one is found at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A checked request on its way."""

    request: SynthesisRequested
    spec: SpeechSpec
    fingerprint: str
    owner: str
    traceparent: str

    @property
    def request_id(self) -> str:
        """Always there at this point."""
        return str(self.request.request_id)


def read_body(body: bytes) -> SynthesisRequested:
    """The request in a body.

    Raises:
        ProblemError: 422, naming the first field at fault, never its content.
    """
    try:
        return SpeechBody.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ProblemError(422, "invalid_request", message, pointer=pointer) from None


def digest_of(request: SynthesisRequested) -> str:
    """Of a request's content without its id, to tell a repeat from another request under the same key."""
    content = request.model_dump(mode="json", by_alias=True, exclude={"request_id"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Doorway:
    """The way in."""

    def __init__(self, speech: Speech, cache: Cache, bus: BusDoor, *, idempotency_ttl_s: int, projection_ttl_s: int):
        self._speech, self._cache, self._bus = speech, cache, bus
        self._idempotency_ttl_s, self._projection_ttl_s = idempotency_ttl_s, projection_ttl_s

    async def ticket(
        self, request: SynthesisRequested, owner: str, *, idempotency_key: str | None = None, trace: str | None = None
    ) -> Ticket:
        """Check a request and give it an id.

        Raises:
            ProblemError: 422, it cannot be spoken here, or its idempotency key came with another request before.
        """
        try:
            spec = self._speech.spec_of(request)
        except RefusedError as error:
            raise ProblemError(422, error.code, error.message, pointer=error.pointer) from None
        request_id = request.request_id or str(ULID())
        if idempotency_key is not None:
            request_id = await self._bound(request, owner, idempotency_key, request_id)
        request = request.model_copy(update={"request_id": request_id})
        return Ticket(request, spec, self._speech.fingerprint_of(spec), owner, trace or new_traceparent())

    async def cached(self, ticket: Ticket) -> CachedRendition | None:
        """The stored rendition a ticket asks for."""
        return await self._cache.rendition(ticket.fingerprint, ticket.request.format)

    async def publish(self, ticket: Ticket) -> None:
        """Put the request on the bus.

        Raises:
            ProblemError: 503, the bus does not answer.
        """
        await self._cache.keep_owner(ticket.request_id, ticket.owner, self._projection_ttl_s)
        message = encode(ticket.request, source=SOURCE, context=Context(ticket.traceparent))
        await self._bus.publish(topics.REQUESTS, message)

    async def answered(self, ticket: Ticket, completion: CompletionData) -> None:
        """Remember an end that was given without the bus, so that it can be asked for again."""
        await self._cache.keep_completion(completion, ticket.owner, self._projection_ttl_s)

    async def _bound(self, request: SynthesisRequested, owner: str, key: str, request_id: str) -> str:
        content = f"{request_id} {digest_of(request)}"
        claimed = await self._cache.claim(owner, key, content, self._idempotency_ttl_s)
        if claimed is None:
            # Without Redis the key itself makes the id, so a repeat is still one request: dedup tells them apart.
            return "idem-" + hashlib.sha256(f"{owner}\n{key}".encode()).hexdigest()[:40]
        bound_id, _, bound_digest = claimed[0].partition(" ")
        if bound_digest != digest_of(request):
            raise ProblemError(422, "request_conflict", "this Idempotency-Key came with another request before")
        return bound_id


def hit_completion(ticket: Ticket, rendition: CachedRendition) -> CompletionData:
    """The completion of a request whose audio was there already."""
    return CompletionData(
        request_id=ticket.request_id,
        status="completed",
        fingerprint=ticket.fingerprint,
        cached=True,
        audio=rendition.audio(),
        engine=rendition.engine,
        metadata=ticket.request.metadata,
    )


def completion_body(completion: CompletionData) -> dict[str, object]:
    """The same form as on `tts.completed` and in the webhook."""
    return {
        "type": f"speech.{completion.status}",
        "timestamp": utc_now().isoformat().replace("+00:00", "Z"),
        "data": completion.model_dump(mode="json", exclude_none=True),
    }
