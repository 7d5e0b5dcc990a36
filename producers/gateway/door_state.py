"""What every route stands on, made once by `app`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, HTTPConnection, Request

from infra.voices import Catalogue
from producers.gateway import metrics
from producers.gateway.backpressure import Backpressure
from producers.gateway.bus_door import BusDoor
from producers.gateway.cache import Cache
from producers.gateway.doorway import Doorway, unknown_request
from producers.gateway.feeds import Tail
from producers.gateway.following import Following
from producers.gateway.keys import KeyRing
from producers.gateway.limits import Limits
from producers.gateway.listening import Listening, completion_of
from producers.gateway.pipeline import Pipeline
from producers.gateway.problems import ProblemError
from producers.gateway.projection import Projection
from producers.gateway.settings import Settings
from producers.gateway.stored_audio import StoredAudio
from producers.gateway.take_hub import TakeHub
from producers.replies import Completions, Followers
from schemas.base import utc_now
from schemas.codes import PERCENT_AT, State
from schemas.completions import CompletionData, RequestStatus

_BODY_S = 15.0
_VIEW_LAG_S = 300
_FIRST_ASKED_S, _LAST_ASKED_S = 2.0, 15.0


@dataclass(slots=True)
class GatewayState:
    """The gateway's parts."""

    settings: Settings
    catalogue: Catalogue
    keys: KeyRing
    limits: Limits
    cache: Cache
    doorway: Doorway
    bus: BusDoor
    tail: Tail
    completions: Completions
    followers: Followers
    projection: Projection
    backpressure: Backpressure
    hub: TakeHub
    stored: StoredAudio
    pipeline: Pipeline
    listeners: int = 0
    open: int = 0
    """Requests being served."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def readiness(self) -> dict[str, str]:
        """What is waited for before requests can be taken, and why."""
        waiting = {}
        if not self.bus.open:
            waiting["bus"] = "the message bus does not answer"
        elif not self.tail.listening.is_set():
            waiting["tail"] = "looking for the ends of the topics"
        return waiting

    async def body(self, request: Request) -> bytes:
        """The body of a request, as far as it may be long.

        Raises:
            ProblemError: 413 when it is longer; 408 when it does not come.
        """
        bound = self.settings.gateway.max_body_bytes
        if (
            request.headers.get("content-length", "0").isdigit()
            and int(request.headers.get("content-length", "0")) > bound
        ):
            raise _too_large(bound)
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for part in request.stream():
                    body += part
                    if len(body) > bound:
                        raise _too_large(bound)
        except TimeoutError:
            raise ProblemError(408, "invalid_request", f"the body did not come within {_BODY_S:g} s") from None
        except ClientDisconnect:
            raise ProblemError(400, "invalid_request", "the body broke off") from None
        return bytes(body)

    @contextmanager
    def listener(self, kind: str) -> Iterator[None]:
        """Room for one more stream or event feed.

        Raises:
            ProblemError: 503, there is none.
        """
        if self.listeners >= self.settings.gateway.max_listeners:
            raise ProblemError(
                503, "too_many_listeners", "as many streams are open as this gateway serves", retry_after_s=5
            )
        self.listeners += 1
        metrics.LISTENERS.labels(kind).inc()
        try:
            yield
        finally:
            self.listeners -= 1
            metrics.LISTENERS.labels(kind).dec()

    @asynccontextmanager
    async def awaited(self, request_id: str) -> AsyncIterator[asyncio.Future[CompletionData]]:
        """The end of a request that is about to be published.

        Raises:
            ProblemError: 503, the gateway does not hear the bus.
        """
        if not self.tail.listening.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.gateway.bus_timeout_s):
                    await self.tail.listening.wait()
            if not self.tail.listening.is_set():
                raise ProblemError(503, "bus_unavailable", "the message bus does not answer", retry_after_s=2)
        future = await self.completions.add(request_id)
        asking = asyncio.create_task(self._ask_for_end(request_id, future))
        try:
            yield future
        finally:
            asking.cancel()
            self.completions.drop(request_id, future)

    async def _ask_for_end(self, request_id: str, future: asyncio.Future[CompletionData]) -> None:
        """A repeat of a request that ended long ago ends without a word on the bus, and a word can be missed."""
        pause_s = _FIRST_ASKED_S
        while not future.done():
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_ASKED_S)
            with suppress(ProblemError):
                status = await self.projection.status(request_id)
                if status is not None and status.state.terminal and not future.done():
                    future.set_result(completion_of(status))

    def listening(self, fingerprint: str, completion: asyncio.Future[CompletionData], sample: int = 0) -> Listening:
        """A listener of a synthesis, for a request whose end is awaited."""
        timeout_s = self.settings.gateway.stream_timeout_s
        return Listening(self.hub, self.stored, self.cache, fingerprint, completion, timeout_s, sample)

    def following(self, request_id: str) -> Following:
        """States of a request from now on."""
        return Following(self.followers, request_id)

    async def told(self, completion: CompletionData) -> None:
        """An end was told to a client: from now on it is the answer at every door, though dedup's view may lag."""
        await self.cache.keep_completion(completion, _VIEW_LAG_S)

    async def status(self, owner: str, request_id: str) -> RequestStatus:
        """Where a request is.

        Raises:
            ProblemError: 404, no such request of this owner; 503, it cannot be told just now.
        """
        await self.doorway.require_owner(owner, request_id)
        completion = await self.cache.completion(request_id)
        if completion is not None:
            return _status_of(completion)
        status = await self.projection.status(request_id)
        if status is not None:
            return status
        fingerprint = await self.cache.fresh(request_id)
        if fingerprint is None:
            raise unknown_request()
        state = State.ACCEPTED
        return RequestStatus(
            request_id=request_id, state=state, percent=PERCENT_AT[state], at=utc_now(), fingerprint=fingerprint
        )


def state_of(connection: HTTPConnection) -> GatewayState:
    """The gateway that serves this connection."""
    state: GatewayState = connection.app.state.gateway
    return state


def _status_of(completion: CompletionData) -> RequestStatus:
    return RequestStatus(
        request_id=completion.request_id,
        state=State(completion.status),
        percent=100,
        at=utc_now(),
        fingerprint=completion.fingerprint,
        cached=completion.cached,
        audio=completion.audio,
        error=completion.error,
    )


def _too_large(bound: int) -> ProblemError:
    return ProblemError(413, "invalid_request", f"the body is larger than {bound} bytes")
