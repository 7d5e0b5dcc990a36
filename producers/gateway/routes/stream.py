"""The streaming road: `WS /v1/stream`. One JSON request in; `started`, audio as it is made, `completed`."""

import asyncio
import json
import re
import time
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from producers.gateway import metrics
from producers.gateway.door_state import GatewayState, state_of
from producers.gateway.listening import Listening, completion_of, ended, failure_of
from producers.gateway.problems import ProblemError
from producers.gateway.tickets import completion_body, other_content, read_body
from schemas.codes import AudioFormat, State

router = APIRouter()
_FIRST_MESSAGE_S = 10.0
_MAX_OFFSET = 2**40
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_KEY_PROTOCOL = "voxbus.v1"
CLOSE = {401: 3000, 403: 3003, 413: 1009, 422: 1008, 400: 1008, 404: 1008, 409: 1008, 429: 1013, 503: 1013, 504: 1013}
"""Close codes by the status of the problem that was told before; 1011 for any other."""


@dataclass(slots=True)
class Line:
    """One WebSocket, written to by one task."""

    socket: WebSocket
    began: float
    send_timeout_s: float
    heard_any: bool = False
    published: str | None = None
    """The request this line put on the bus, while its end is not told."""

    async def event(self, **fields: Any) -> None:
        """A JSON message."""
        await self._bounded(self.socket.send_text(json.dumps(fields, ensure_ascii=False)))

    async def pcm(self, block: bytes) -> None:
        """A binary message."""
        await self._bounded(self.socket.send_bytes(block))
        if not self.heard_any:
            self.heard_any = True
            metrics.FIRST_AUDIO.observe(time.monotonic() - self.began)

    async def refuse(self, problem: ProblemError) -> None:
        """The refusal as a message, then the end."""
        with suppress(WebSocketDisconnect, RuntimeError):
            await self.event(event="failed", **problem.body())
            await self.socket.close(CLOSE.get(problem.status, 1011))

    async def _bounded(self, sending: Any) -> None:
        try:
            async with asyncio.timeout(self.send_timeout_s):
                await sending
        except (TimeoutError, RuntimeError):
            raise WebSocketDisconnect(1006) from None


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Serve one request."""
    state = state_of(socket)
    await socket.accept(_KEY_PROTOCOL if _KEY_PROTOCOL in socket.headers.get("sec-websocket-protocol", "") else None)
    line = Line(socket, time.monotonic(), state.settings.gateway.send_timeout_s)
    try:
        # Read first: a client that still sends when it is refused may not see the refusal. And no slot is taken by
        # those who say nothing, or may not.
        message = await _first_message(state, socket)
        until = state.answer_by()
        owner = state.keys.require(socket)
        await state.limits.take(owner)
        with state.listener("stream"):
            await _until_gone(state, line, _talk(state, line, owner, message, until))
    except ProblemError as problem:
        await line.refuse(problem)
    except ConnectionError:
        lost = "the bus was lost; come back with request_id and offset"
        await line.refuse(ProblemError(503, "bus_unavailable", lost, retry_after_s=1))
    except WebSocketDisconnect:
        return


async def _until_gone(state: GatewayState, line: Line, talk: Coroutine[Any, Any, None]) -> None:
    """Talk until all is said or the listener leaves, which only reading can tell."""
    socket = line.socket
    talking, gone = asyncio.create_task(talk), asyncio.create_task(_gone(socket))
    try:
        await asyncio.wait({talking, gone}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done():
            talking.result()
            await socket.close(1000)
        else:
            raise WebSocketDisconnect
    except WebSocketDisconnect:
        if line.published is not None:
            state.audience.left(line.published)
    finally:
        talking.cancel()
        gone.cancel()
        await asyncio.gather(talking, gone, return_exceptions=True)


async def _gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _first_message(state: GatewayState, socket: WebSocket) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_FIRST_MESSAGE_S):
            received = await socket.receive()
    except TimeoutError:
        raise ProblemError(408, "invalid_request", f"send a request within {_FIRST_MESSAGE_S:g} s") from None
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    text = received.get("text") or (received.get("bytes") or b"").decode("utf-8", "replace")
    if len(text) > state.settings.gateway.max_body_bytes:
        raise ProblemError(413, "invalid_request", "the request is too large")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ProblemError(400, "invalid_request", "send one JSON object")
    return message


async def _talk(state: GatewayState, line: Line, owner: str, message: dict[str, Any], until: float) -> None:
    offset = message.pop("offset", 0)
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < _MAX_OFFSET:
        raise ProblemError(422, "invalid_request", "an offset is a number of samples", pointer="/offset")
    if "text" not in message and "request_id" in message:
        await _resume(state, line, owner, message["request_id"], offset, until)
        return
    ticket = await state.doorway.ticket(read_body(json.dumps(message).encode()), owner)
    rendition, master = await asyncio.gather(
        state.doorway.cached(ticket), state.doorway.cached(ticket, AudioFormat.FLAC)
    )
    if rendition is not None and ticket.request.callback_url is None:
        # Before it is heard, so that a listener whose line breaks can come back.
        completion = await state.doorway.answered(ticket, rendition)
        metrics.SPEECH.labels("streamed_hit").inc()
        listening = state.listening(ticket.fingerprint, ended(completion), offset)
        listening.sample_rate = rendition.sample_rate
        await _play(state, line, listening, ticket.name, stored=True)
        return
    if master is None:
        state.backpressure.admit(ticket.request.priority)
    async with state.audience.follows(ticket.request_id), state.awaited(ticket.request_id, until) as future:
        await state.doorway.publish(ticket, until)
        if master is None:
            state.backpressure.announce(ticket.fingerprint, ticket.request.priority, ticket.request.text)
        if ticket.request.callback_url is None:  # otherwise the webhook's receiver waits for it as well
            line.published = ticket.request_id
        metrics.SPEECH.labels("streamed").inc()
        listening = state.listening(ticket.fingerprint, future, offset)
        listening.sample_rate = master.sample_rate if master else state.hub.sample_rate
        await _play(state, line, listening, ticket.name, stored=False)


async def _resume(state: GatewayState, line: Line, owner: str, name: object, offset: int, until: float) -> None:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise ProblemError(422, "invalid_request", "this cannot be the id of a request", pointer="/request_id")
    request_id = state.doorway.id_of(owner, name)
    async with state.audience.follows(request_id), state.awaited(request_id, until) as future:
        status = await state.status(request_id)
        if status.fingerprint is None:
            raise ProblemError(409, "not_ready", "the request is not admitted yet", retry_after_s=1)
        if status.state.terminal and not future.done():
            future.set_result(completion_of(status))
        listening = state.listening(status.fingerprint, future, offset)
        await _play(state, line, listening, name, stored=status.state is State.COMPLETED)


async def _play(state: GatewayState, line: Line, listening: Listening, name: str, *, stored: bool) -> None:
    offset = listening.sample
    began = listening.sample_rate > 0
    if began:  # the listener learns its id at once, to come back with
        await _started(line, listening, name, offset, stored=stored)
    async with aclosing(listening.from_store() if stored else listening.blocks()) as blocks:
        async for block in blocks:
            if not began:
                began = True
                await _started(line, listening, name, offset, stored=stored)
            await line.pcm(block)
    if not began:  # nothing was left to be heard
        await _started(line, listening, name, offset, stored=stored)
    try:
        async with asyncio.timeout(listening.timeout_s):
            completion = await asyncio.shield(listening.completion)
    except TimeoutError:
        raise ProblemError(504, "deadline_exceeded", "the end of the request was not heard in time") from None
    if completion.fingerprint not in (None, listening.fingerprint):
        raise other_content()
    line.published = None
    await state.told(completion)
    if completion.audio is None:
        raise failure_of(completion)
    await line.event(event="completed", samples=listening.sample, **json.loads(completion_body(completion, name)))


async def _started(line: Line, listening: Listening, name: str, offset: int, *, stored: bool) -> None:
    await line.event(
        event="started",
        request_id=name,
        fingerprint=listening.fingerprint,
        sample_rate=listening.sample_rate,
        channels=1,
        encoding="pcm_s16le",
        offset=offset,
        cached=stored,
    )
