"""What every route stands on, made once by `app`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, HTTPConnection, Request

from infra.voices import Catalogue
from producers.gateway import metrics
from producers.gateway.audience import Audience
from producers.gateway.backpressure import Backpressure
from producers.gateway.bus_door import BusDoor
from producers.gateway.cache import Cache
from producers.gateway.doorway import Doorway
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
from producers.gateway.tickets import unknown_request
from producers.replies import Completions, Followers
from schemas.base import utc_now
from schemas.codes import PERCENT_AT, State
from schemas.completions import CompletionData, RequestStatus

_BODY_S = 15.0
_REDIS_SHARE_S = 0.25  # of the time to an answer, beyond the bus's own
_DIGITS = 10
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
    audience: Audience
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
        if whole_number(request.headers.get("content-length", "")) > bound:
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

    def answer_by(self) -> float:
        """When a request that comes now wants its answer, by the loop's clock: one moment for all that it waits for."""
        return asyncio.get_running_loop().time() + self.settings.gateway.bus_timeout_s + _REDIS_SHARE_S

    @asynccontextmanager
    async def awaited(self, request_id: str, until: float) -> AsyncIterator[asyncio.Future[CompletionData]]:
        """The end of a request that is about to be published.

        Raises:
            ProblemError: 503, the gateway does not hear the bus until then, or too many wait already.
        """
        try:
            async with asyncio.timeout_at(until):
                await self.tail.listening.wait()
                future = await self.completions.add(request_id)
        except TimeoutError:
            raise ProblemError(503, "bus_unavailable", "the message bus does not answer", retry_after_s=2) from None
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

    async def status(self, request_id: str) -> RequestStatus:
        """Where a request is.

        Raises:
            ProblemError: 404, there is no such request; 503, it cannot be told just now.
        """
        recalled = await self.cache.recall(request_id)
        if recalled.completion is not None:
            return _status_of(recalled.completion)
        status = await self.projection.status(request_id)
        if status is not None:
            return status
        if recalled.accepted is not None:
            return accepted(request_id, recalled.accepted)
        if recalled.answered:
            raise unknown_request()
        detail = "dedup does not know it, and what was just accepted or answered at a door cannot be told without Redis"
        raise ProblemError(503, "state_unavailable", detail, retry_after_s=1)


def state_of(connection: HTTPConnection) -> GatewayState:
    """The gateway that serves this connection."""
    state: GatewayState = connection.app.state.gateway
    return state


def accepted(request_id: str, fingerprint: str | None = None) -> RequestStatus:
    """The state of a request that is on the bus and has not been heard of."""
    state = State.ACCEPTED
    return RequestStatus(
        request_id=request_id, state=state, percent=PERCENT_AT[state], at=utc_now(), fingerprint=fingerprint
    )


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


def whole_number(text: str) -> int:
    """The number in ASCII digits, at most 10^9; 0 for anything else. `str.isdigit` takes digits that `int` does not."""
    if not (text.isascii() and text.isdigit()):
        return 0
    return int(text) if len(text) < _DIGITS else 10**9


def _too_large(bound: int) -> ProblemError:
    return ProblemError(413, "invalid_request", f"the body is larger than {bound} bytes")
