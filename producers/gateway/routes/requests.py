"""What follows a request by its id: poll, follow, fetch."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from producers.gateway.door_state import GatewayState, accepted, state_of
from producers.gateway.following import Following
from producers.gateway.held_response import HeldResponse
from producers.gateway.listening import completion_of
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openapi import AUDIO, CANCEL, EVENTS, POLL
from producers.gateway.tickets import status_body
from schemas.codes import State
from schemas.completions import RequestStatus

router = APIRouter()
_ROAD = {state: number for number, state in enumerate(State)}
_HEARTBEAT_S = 15.0
_EVENT_ID = re.compile(r"[0-9]{3}-[0-9]{2}")
RequestIdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="Of the request.")]


@router.get("/v1/requests/{request_id}", summary="State of a request", response_model=None, **POLL)
async def poll(request: Request, request_id: RequestIdPath) -> Response:
    """Where a request is; with its audio or its error when it has ended."""
    state = state_of(request)
    status = await state.status(state.doorway.id_of(state.keys.require(request), request_id))
    headers = {} if status.state.terminal else {"Retry-After": "1"}
    return Response(status_body(status, request_id), media_type="application/json", headers=headers)


@router.delete("/v1/requests/{request_id}", summary="Cancel a request", response_model=None, **CANCEL)
async def cancel(request: Request, request_id: RequestIdPath) -> Response:
    """End a request as `cancelled`. Others who wait for the same speech are not touched. Repeating it is harmless."""
    state = state_of(request)
    known = await _owned(request, request_id)
    try:
        status = await state.status(known)
    except ProblemError as problem:
        if problem.status != 503:
            raise
        # Nobody can tell its state. It is theirs, and on the bus the word comes behind the request, if there is one.
        status = accepted(known)
    if not status.state.terminal:
        await state.doorway.cancel(known)
    code = 200 if status.state.terminal else 202
    headers = {"Location": f"/v1/requests/{request_id}"}
    return Response(status_body(status, request_id), code, headers, media_type="application/json")


@router.get(
    "/v1/requests/{request_id}/audio",
    summary="Audio of a request",
    response_model=None,
    response_class=Response,
    **AUDIO,
)
async def audio(request: Request, request_id: RequestIdPath) -> Response:
    """302 to the object once it is there."""
    status = await state_of(request).status(await _owned(request, request_id))
    if status.audio is not None:
        return RedirectResponse(status.audio.url, 302, {"Cache-Control": "no-store"})
    if status.error is not None:
        raise ProblemError(409, status.error.code, status.error.message)
    raise ProblemError(
        409, "not_ready", f"the request is {status.state}", retry_after_s=None if status.state.terminal else 1
    )


@router.get(
    "/v1/requests/{request_id}/events",
    summary="Follow a request (SSE)",
    response_model=None,
    response_class=Response,
    **EVENTS,
)
async def events(request: Request, request_id: RequestIdPath) -> Response:
    """Server-sent events `status`, each with an id; the last one is terminal. 204 when that one was seen already."""
    state = state_of(request)
    last = request.headers.get("last-event-id", "")
    if last and not _EVENT_ID.fullmatch(last):
        raise ProblemError(422, "invalid_request", "Last-Event-ID is none that was sent from here")
    known = await _owned(request, request_id)
    async with AsyncExitStack() as resources:
        # Heard first and asked then, so that nothing falls between the two.
        resources.enter_context(state.listener("events"))
        following = resources.enter_context(state.following(known))
        await resources.enter_async_context(state.audience.follows(known))
        current = await state.status(known)
        if current.state.terminal and _event_id(current) <= last:
            return Response(status_code=204)
        return HeldResponse(
            _events(state, following, current, request_id, last),
            resources.pop_all(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
            send_timeout_s=state.settings.gateway.send_timeout_s,
        )


async def _owned(request: Request, name: str) -> str:
    """The id of what the caller calls so, within the caller's limits."""
    state = state_of(request)
    owner = state.keys.require(request)
    await state.limits.take(owner)
    return state.doorway.id_of(owner, name)


async def _events(
    state: GatewayState, following: Following, first: RequestStatus, name: str, last: str
) -> AsyncIterator[bytes]:
    current: RequestStatus | None = first
    known = first.request_id
    yield b": following\n\n"
    while True:
        if current is None:
            if state.closing.is_set():
                return
            yield b": still here\n\n"
            current = await _asked_again(state, known)
        if current is not None and current.state.terminal:
            await state.told(completion_of(current))
        if current is not None and _event_id(current) > last:
            last = _event_id(current)
            yield f"id: {last}\nevent: status\ndata: {status_body(current, name)}\n\n".encode()
        if current is not None and current.state.terminal:
            return
        current = await following.next(_HEARTBEAT_S)


async def _asked_again(state: GatewayState, request_id: str) -> RequestStatus | None:
    """In a long silence something may have been missed while the bus was away."""
    try:
        return await state.status(request_id)
    except ProblemError:
        return None


def _event_id(status: RequestStatus) -> str:
    """Grows along the road of one request, and is the same on every gateway."""
    return f"{status.percent:03d}-{_ROAD[status.state]:02d}"
