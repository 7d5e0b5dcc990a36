"""What follows a request by its id: poll, follow, fetch."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from producers.gateway.door_state import GatewayState, state_of
from producers.gateway.listening import completion_of
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openapi import AUDIO, CANCEL, EVENTS, POLL
from schemas.codes import State
from schemas.completions import RequestStatus

router = APIRouter()
_ROAD = {state: number for number, state in enumerate(State)}
_HEARTBEAT_S = 15.0
RequestIdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="Of the request.")]


@router.get("/v1/requests/{request_id}", summary="State of a request", response_model=None, **POLL)
async def poll(request: Request, request_id: RequestIdPath) -> Response:
    """Where a request is; with its audio or its error when it has ended."""
    state = state_of(request)
    status = await state.status(state.keys.require(request), request_id)
    headers = {} if status.state.terminal else {"Retry-After": "1"}
    return Response(status.model_dump_json(exclude_none=True), media_type="application/json", headers=headers)


@router.delete("/v1/requests/{request_id}", summary="Cancel a request", response_model=None, **CANCEL)
async def cancel(request: Request, request_id: RequestIdPath) -> Response:
    """End a request as `cancelled`. Others who wait for the same speech are not touched. Repeating it is harmless."""
    state = state_of(request)
    status = await state.status(state.keys.require(request), request_id)
    if not status.state.terminal:
        await state.doorway.cancel(request_id)
    url = f"/v1/requests/{request_id}"
    code = 200 if status.state.terminal else 202
    body = status.model_dump_json(exclude_none=True)
    return Response(body, code, {"Location": url}, media_type="application/json")


@router.get("/v1/requests/{request_id}/audio", summary="Audio of a request", response_model=None, **AUDIO)
async def audio(request: Request, request_id: RequestIdPath) -> Response:
    """302 to the object once it is there."""
    state = state_of(request)
    status = await state.status(state.keys.require(request), request_id)
    if status.audio is not None:
        return RedirectResponse(status.audio.url, 302, {"Cache-Control": "no-store"})
    if status.error is not None:
        raise ProblemError(409, status.error.code, status.error.message)
    raise ProblemError(
        409, "not_ready", f"the request is {status.state}", retry_after_s=None if status.state.terminal else 1
    )


@router.get("/v1/requests/{request_id}/events", summary="Follow a request (SSE)", response_model=None, **EVENTS)
async def events(request: Request, request_id: RequestIdPath) -> Response:
    """Server-sent events `status`, each with an id; the last one is terminal."""
    state = state_of(request)
    owner = state.keys.require(request)
    await state.doorway.require_owner(owner, request_id)
    stream = _events(state, owner, request_id, request.headers.get("last-event-id", ""))
    head = await anext(stream)  # what is to be refused is refused before the answer has begun
    return StreamingResponse(
        _after(head, stream), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _events(state: GatewayState, owner: str, request_id: str, last: str) -> AsyncIterator[bytes]:
    # Heard first and asked then, so that nothing falls between the two.
    with state.listener("events"), state.following(request_id) as following:
        current: RequestStatus | None = await state.status(owner, request_id)
        yield b": following\n\n"
        while True:
            if current is None:
                if state.closing.is_set():
                    return
                yield b": still here\n\n"
                current = await _asked_again(state, owner, request_id)
            if current is not None and current.state.terminal:
                await state.told(completion_of(current))
            if current is not None and _event_id(current) > last:
                last = _event_id(current)
                yield f"id: {last}\nevent: status\ndata: {current.model_dump_json(exclude_none=True)}\n\n".encode()
            if current is not None and current.state.terminal:
                return
            current = await following.next(_HEARTBEAT_S)


async def _asked_again(state: GatewayState, owner: str, request_id: str) -> RequestStatus | None:
    """In a long silence something may have been missed while the bus was away."""
    try:
        return await state.status(owner, request_id)
    except ProblemError:
        return None


async def _after(head: bytes, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for event in stream:
        yield event


def _event_id(status: RequestStatus) -> str:
    """Grows along the road of one request, and is the same on every gateway."""
    return f"{status.percent:03d}-{_ROAD[status.state]:02d}"
