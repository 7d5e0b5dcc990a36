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
from producers.gateway.keys import KeyRing
from producers.gateway.problems import ProblemError
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, encode, new_traceparent
from schemas.codes import AudioFormat
from schemas.completions import CompletionData
from schemas.renditions import CachedRendition
from schemas.requests import CancelRequested, SpeechSpec, SynthesisRequested

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
    request_id: str
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


def read_body(body: bytes) -> SynthesisRequested:
    """The request in a body.

    Raises:
        ProblemError: 422, naming the first field at fault, never its content.
    """
    try:
        return SpeechBody.model_validate_json(body)
    except ValidationError as error:
        raise problem_of(error) from None


def problem_of(error: ValidationError) -> ProblemError:
    """The refusal that names the first field at fault, never its content."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    pointer = "".join(f"/{part}" for part in first["loc"])
    return ProblemError(422, "invalid_request", str(first["msg"]).removeprefix("Value error, "), pointer=pointer)


def digest_of(request: SynthesisRequested) -> str:
    """Of a request's content, to tell a repeat from another request under the same key."""
    content = request.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Doorway:
    """The way in."""

    def __init__(
        self,
        speech: Speech,
        cache: Cache,
        bus: BusDoor,
        keys: KeyRing,
        *,
        idempotency_ttl_s: int,
        projection_ttl_s: int,
    ) -> None:
        self._speech, self._cache, self._bus, self._keys = speech, cache, bus, keys
        self._idempotency_ttl_s, self._projection_ttl_s = idempotency_ttl_s, projection_ttl_s

    async def ticket(
        self, request: SynthesisRequested, owner: str, *, idempotency_key: str | None = None, trace: str | None = None
    ) -> Ticket:
        """Check a request and give it an id.

        Raises:
            ProblemError: 422, it cannot be spoken here, or its idempotency key came with another request before;
                409, its id is another owner's.
        """
        try:
            spec = self._speech.spec_of(request)
        except RefusedError as error:
            raise ProblemError(422, error.code, error.message, pointer=error.pointer) from None
        request_id = request.request_id
        if idempotency_key is not None:
            await self._claim_key(request, owner, idempotency_key)
            request_id = request_id or self._keys.sign(owner, _id_of_key(owner, idempotency_key))
        if request_id is None:
            request_id = self._keys.sign(owner, str(ULID()))
        elif not self._keys.open:
            await self._claim_id(owner, request_id)
        return Ticket(request, spec, self._speech.fingerprint_of(spec), request_id, trace)

    async def cached(self, ticket: Ticket, audio_format: AudioFormat | None = None) -> CachedRendition | None:
        """The stored rendition a ticket asks for, or one in another format."""
        return await self._cache.rendition(ticket.fingerprint, audio_format or ticket.request.format)

    async def publish(self, ticket: Ticket) -> None:
        """Put the request on the bus.

        Raises:
            ProblemError: 503, the bus does not answer.
        """
        request = ticket.request
        if request.request_id is None:
            request = request.model_copy(update={"request_id": ticket.request_id})
        message = encode(request, source=SOURCE, context=Context(ticket.trace or new_traceparent()))
        await self._bus.publish(topics.REQUESTS, message)
        await self._cache.accepted(ticket.request_id, ticket.fingerprint)

    async def cancel(self, request_id: str) -> None:
        """Ask for the end of a request; its state tells when it came.

        Raises:
            ProblemError: 503, the bus does not answer.
        """
        message = encode(CancelRequested(request_id=request_id), source=SOURCE, context=Context(new_traceparent()))
        await self._bus.publish(topics.REQUESTS, message)

    async def answered(self, completion: CompletionData) -> None:
        """Remember an end that was given without the bus, so that it can be asked for again."""
        await self._cache.keep_completion(completion, self._projection_ttl_s)

    async def require_owner(self, owner: str, request_id: str) -> None:
        """Let only the owner see a request.

        Raises:
            ProblemError: 404, it is not theirs, which nobody is told; 503, that cannot be told without Redis.
        """
        if self._keys.open:
            return
        if self._keys.is_marked(request_id):
            if not self._keys.owns(owner, request_id):
                raise unknown_request()
            return
        found = await self._cache.bound(f"owner:{request_id}")
        if found is None:
            raise ProblemError(503, "state_unavailable", "owners of requests cannot be told just now", retry_after_s=1)
        if found != owner:
            raise unknown_request()

    async def _claim_key(self, request: SynthesisRequested, owner: str, key: str) -> None:
        """The id of such a request follows from the key, so without Redis a repeat is still the same request."""
        digest = digest_of(request)
        claim = await self._cache.claim(f"idempotency:{_id_of_key(owner, key)}", digest, self._idempotency_ttl_s)
        if claim is not None and claim.content != digest:
            raise ProblemError(422, "request_conflict", "this Idempotency-Key came with another request before")

    async def _claim_id(self, owner: str, request_id: str) -> None:
        """Ids that clients choose are not marked with their owner; who came first is kept in Redis."""
        if self._keys.is_marked(request_id):
            if self._keys.owns(owner, request_id):
                return
            raise _taken()
        claim = await self._cache.claim(f"owner:{request_id}", owner, self._projection_ttl_s)
        if claim is None:
            raise ProblemError(
                503,
                "state_unavailable",
                "ids of your own cannot be taken just now; leave request_id out",
                retry_after_s=1,
            )
        if claim.content != owner:
            raise _taken()


def unknown_request() -> ProblemError:
    """No such request, or not yours."""
    return ProblemError(404, "unknown_request", "no such request, or it is forgotten by now")


def completion_body(completion: CompletionData) -> bytes:
    """JSON in the form of `tts.completed` and of the webhook."""
    at = utc_now().isoformat().replace("+00:00", "Z")
    data = completion.model_dump_json(exclude_none=True)
    return f'{{"type":"speech.{completion.status}","timestamp":"{at}","data":{data}}}'.encode()


def _taken() -> ProblemError:
    return ProblemError(409, "request_conflict", "this request_id is taken", pointer="/request_id")


def _id_of_key(owner: str, key: str) -> str:
    return "idem-" + hashlib.sha256(f"{owner}\n{key}".encode()).hexdigest()[:40]
