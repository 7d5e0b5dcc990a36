"""What happens to a speech request at the HTTP door, whichever route it came by.

Checked, named, answered from the cache or put on the bus. The steps that decide are in `tickets`; this module puts
them in order.
"""

import asyncio
from contextlib import suppress

from ulid import ULID

from infra.speech import Speech
from producers.gateway.bus_door import BusDoor
from producers.gateway.cache import Cache
from producers.gateway.keys import KeyRing
from producers.gateway.problems import ProblemError
from producers.gateway.projection import Projection
from producers.gateway.tickets import Checked, Ticket, check, id_of_key, name_of_key, other_content, unknown_request
from schemas import topics
from schemas.codec import Context, encode, new_traceparent
from schemas.codes import AudioFormat
from schemas.completions import CompletionData
from schemas.renditions import CachedRendition
from schemas.requests import CancelRequested, SynthesisRequested

SOURCE = "voxbus/gateway"
_LONG_CHARS = 2_000  # a longer text takes more than a millisecond to check
_KNOWN_S = 0.3  # how long dedup may take to tell whether it knows an id


class Doorway:
    """The way in."""

    def __init__(
        self,
        speech: Speech,
        cache: Cache,
        bus: BusDoor,
        keys: KeyRing,
        projection: Projection,
        *,
        idempotency_ttl_s: int,
        projection_ttl_s: int,
    ) -> None:
        self._speech, self._cache, self._bus, self._keys, self._projection = speech, cache, bus, keys, projection
        self._idempotency_ttl_s, self._projection_ttl_s = idempotency_ttl_s, projection_ttl_s

    async def ticket(
        self, request: SynthesisRequested, owner: str, *, idempotency_key: str | None = None, trace: str | None = None
    ) -> Ticket:
        """Check a request and give it an id.

        Raises:
            ProblemError: 422, it cannot be spoken here, or its idempotency key came with another request before;
                409, its id came with another content before, or is another owner's.
        """
        long = len(request.text) > _LONG_CHARS
        checked = await asyncio.to_thread(check, request, self._speech) if long else check(request, self._speech)
        if idempotency_key is not None:
            await self._claim_key(owner, idempotency_key, checked.digest)
        chosen = request.request_id
        if chosen is not None:
            ticket = Ticket(request, checked.fingerprint, self._id_of(owner, chosen), chosen, trace)
            await self._bind(ticket, checked)
            return ticket
        name = id_of_key(owner, idempotency_key, checked.digest) if idempotency_key is not None else str(ULID())
        request_id = self._keys.sign(owner, name)
        return Ticket(request, checked.fingerprint, request_id, request_id, trace)

    async def cached(self, ticket: Ticket, audio_format: AudioFormat | None = None) -> CachedRendition | None:
        """The stored rendition a ticket asks for, or one in another format."""
        return await self._cache.rendition(ticket.fingerprint, audio_format or ticket.request.format)

    async def publish(self, ticket: Ticket, until: float | None = None) -> None:
        """Put the request on the bus, until a moment of the loop's clock.

        Raises:
            ProblemError: 503, the bus does not answer.
        """
        request = ticket.request
        if request.request_id != ticket.request_id:
            request = request.model_copy(update={"request_id": ticket.request_id})
        message = encode(request, source=SOURCE, context=Context(ticket.trace or new_traceparent()))
        await self._bus.publish(topics.REQUESTS, message, until)
        await self._cache.accepted(ticket.request_id, ticket.fingerprint)

    async def cancel(self, request_id: str) -> None:
        """Ask for the end of a request; its state tells when it came.

        Raises:
            ProblemError: 503, the bus does not answer.
        """
        message = encode(CancelRequested(request_id=request_id), source=SOURCE, context=Context(new_traceparent()))
        await self._bus.publish(topics.REQUESTS, message)

    async def answered(self, ticket: Ticket, rendition: CachedRendition) -> CompletionData:
        """The end of a request without the bus, remembered so that it can be asked for again."""
        completion = ticket.completion(rendition)
        await self._cache.keep_completion(completion, self._projection_ttl_s)
        return completion

    def id_of(self, owner: str, name: str) -> str:
        """The id of the request that its owner calls `name`. That of another's request cannot even be said.

        Raises:
            ProblemError: 404, the name is an id that was made for another owner.
        """
        if self._is_foreign(owner, name):
            raise unknown_request()
        return self._keys.id_of(owner, name)

    def _id_of(self, owner: str, chosen: str) -> str:
        if self._is_foreign(owner, chosen):
            raise ProblemError(409, "request_conflict", "this request_id is taken", pointer="/request_id")
        return self._keys.id_of(owner, chosen)

    def _is_foreign(self, owner: str, name: str) -> bool:
        return not self._keys.open and self._keys.is_marked(name) and not self._keys.owns(owner, name)

    async def _claim_key(self, owner: str, key: str, digest: str) -> None:
        name = f"idempotency:{name_of_key(owner, key)}"
        claim = await self._cache.claim(name, digest, self._idempotency_ttl_s)
        if claim is not None and claim.content != digest:
            raise ProblemError(422, "request_conflict", "this Idempotency-Key came with another request before")

    async def _bind(self, ticket: Ticket, checked: Checked) -> None:
        """Ids that clients choose keep the content they first came with, here as at dedup."""
        name = f"content:{ticket.request_id}"
        claim = await self._cache.claim(name, checked.digest, self._projection_ttl_s)
        if claim is not None and not claim.fresh:
            if claim.content != checked.digest:
                raise other_content()
            return
        # New at the gateways. Dedup may know it: from another door, or from before Redis forgot.
        if not await self._can_be(ticket):
            await self._cache.unclaim(name)
            raise other_content()

    async def _can_be(self, ticket: Ticket) -> bool:
        """While dedup is silent nobody objects; what it answers later is compared again before it is told."""
        with suppress(ProblemError, TimeoutError):
            async with asyncio.timeout(_KNOWN_S):
                known = await self._projection.status(ticket.request_id)
                return known is None or ticket.ended_by(known)
        return True
