"""The queue road: `POST /v1/speech`, and what follows a request by its id."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from producers.gateway.door_state import GatewayState, state_of
from producers.gateway.doorway import Ticket, completion_body, hit_completion, read_body
from producers.gateway.problems import ProblemError
from schemas.base import utc_now
from schemas.completions import CompletionData, RequestStatus

router = APIRouter()

_EXAMPLE = {"text": "您好,请问有什么可以帮您?", "voice": "female1", "format": "mp3"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/SpeechBody"},
                "example": _EXAMPLE,
            }
        },
    }
}


@router.post("/v1/speech", openapi_extra=_BODY, summary="Speak a text", response_model=None, status_code=202)
async def speak(request: Request) -> Response:
    """Queue a text to be spoken; answered at once with the completion when the audio is stored already."""
    state = state_of(request)
    owner = state.keys.require(request)
    await state.limits.take(owner)
    body = await state.body(request)
    ticket = await state.doorway.ticket(
        read_body(body),
        owner,
        idempotency_key=_idempotency_key(request),
        trace=request.headers.get("traceparent"),
    )
    hit = await state.doorway.cached(ticket)
    if hit is not None:
        completion = hit_completion(ticket, hit)
        if ticket.request.callback_url is None:
            await state.doorway.answered(ticket, completion)
        else:
            # The webhook is the notifier's to send, so this one goes over the bus as well.
            await state.doorway.publish(ticket)
        state.count("hit")
        return JSONResponse(completion_body(completion), headers={"Preference-Applied": "respond-sync"})
    state.backpressure.admit(ticket.request.priority)
    wait_s = _preferred_wait(request, state.settings.gateway.wait_max_s)
    if wait_s is None:
        await state.doorway.publish(ticket)
        return _accepted(state, ticket)
    return await _wait(state, ticket, wait_s)


@router.get("/v1/requests/{request_id}", summary="State of a request", response_model=None)
async def poll(request: Request, request_id: str) -> Response:
    """Where a request is; with its audio or its error when it has ended."""
    state = state_of(request)
    status = await _status(state, state.keys.require(request), request_id)
    headers = {} if status.state.terminal else {"Retry-After": "1"}
    return Response(status.model_dump_json(exclude_none=True), media_type="application/json", headers=headers)


@router.get("/v1/requests/{request_id}/audio", summary="Audio of a request", response_model=None)
async def audio(request: Request, request_id: str) -> Response:
    """302 to the object once it is there."""
    state = state_of(request)
    status = await _status(state, state.keys.require(request), request_id)
    if status.audio is not None:
        return RedirectResponse(status.audio.url, 302)
    if status.error is not None:
        raise ProblemError(409, status.error.code, status.error.message)
    raise ProblemError(409, "not_ready", f"the request is {status.state}", retry_after_s=1)


@router.get("/v1/requests/{request_id}/events", summary="Follow a request (SSE)", response_model=None)
async def events(request: Request, request_id: str) -> Response:
    """Server-sent events `status`, each with an id; the last one is terminal."""
    state = state_of(request)
    owner = state.keys.require(request)
    follower = state.following(request_id)
    try:
        status = await _status(state, owner, request_id)
    except BaseException:
        follower.close()
        raise
    seen = request.headers.get("last-event-id", "")

    async def stream() -> AsyncIterator[bytes]:
        with follower:
            last = seen
            current: RequestStatus | None = status
            while True:
                if current is not None and _event_id(current) > last:
                    last = _event_id(current)
                    yield f"id: {last}\nevent: status\ndata: {current.model_dump_json(exclude_none=True)}\n\n".encode()
                    if current.state.terminal:
                        return
                elif current is not None and current.state.terminal:
                    return
                current = await follower.next(timeout_s=15)
                if current is None:
                    yield b": still here\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _event_id(status: RequestStatus) -> str:
    """Grows along the road of one request, and is the same on every gateway."""
    return f"{status.percent:03d}-{list(type(status.state)).index(status.state):02d}"


async def _status(state: GatewayState, owner: str, request_id: str) -> RequestStatus:
    await state.require_owner(owner, request_id)
    completion = await state.cache.completion(request_id)
    if completion is not None:
        return RequestStatus(
            request_id=request_id,
            state=completion.status,
            percent=100,
            at=utc_now(),
            fingerprint=completion.fingerprint,
            cached=completion.cached,
            audio=completion.audio,
            error=completion.error,
        )
    status = await state.projection.status(request_id)
    if status is None:
        raise ProblemError(404, "unknown_request", "no such request, or it is forgotten by now")
    return status


async def _wait(state: GatewayState, ticket: Ticket, wait_s: float) -> Response:
    await state.completed.listening.wait()
    future = await state.completions.add(ticket.request_id)
    try:
        await state.doorway.publish(ticket)
        async with asyncio.timeout(wait_s):
            completion: CompletionData = await asyncio.shield(future)
    except (TimeoutError, ConnectionError):
        return _accepted(state, ticket)
    finally:
        state.completions.drop(ticket.request_id, future)
    return JSONResponse(completion_body(completion), headers={"Preference-Applied": f"wait={wait_s:g}"})


def _accepted(state: GatewayState, ticket: Ticket) -> Response:
    state.count("queued")
    url = f"/v1/requests/{ticket.request_id}"
    body = {
        "request_id": ticket.request_id,
        "status_url": url,
        "fingerprint": ticket.fingerprint,
        "estimated_start_s": state.backpressure.estimated_start_s,
    }
    return Response(json.dumps(body), 202, {"Location": url}, media_type="application/json")


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 255:
        raise ProblemError(400, "invalid_request", "an Idempotency-Key is 1 to 255 characters")
    return key


def _preferred_wait(request: Request, longest: float) -> float | None:
    for preference in request.headers.get("prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "wait":
            try:
                return min(max(0.0, float(value)), longest)
            except ValueError:
                raise ProblemError(400, "invalid_request", "Prefer: wait wants a number of seconds") from None
    return None
