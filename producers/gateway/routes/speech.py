"""The queue road: `POST /v1/speech`."""

import asyncio
import json

from fastapi import APIRouter, Request, Response

from producers.gateway import metrics
from producers.gateway.door_state import GatewayState, state_of, whole_number
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openapi import SPEECH
from producers.gateway.tickets import Ticket, completion_body, other_content, read_body

router = APIRouter()
_JSON = "application/json"
_CACHED = {"Preference-Applied": "respond-sync"}


@router.post("/v1/speech", summary="Speak a text", response_model=None, **SPEECH)
async def speak(request: Request) -> Response:
    """Queue a text to be spoken; answered at once with the completion when the audio is stored already."""
    state = state_of(request)
    until = state.answer_by()
    owner = state.keys.require(request)
    await state.limits.take(owner)
    ticket = await state.doorway.ticket(
        read_body(await state.body(request)),
        owner,
        idempotency_key=_idempotency_key(request),
        trace=request.headers.get("traceparent"),
    )
    hit = await state.doorway.cached(ticket)
    if hit is not None:
        if ticket.request.callback_url is None:
            completion = await state.doorway.answered(ticket, hit)
        else:
            # The webhook is the notifier's to send, so this one goes over the bus as well.
            completion = ticket.completion(hit)
            await state.doorway.publish(ticket, until)
        metrics.SPEECH.labels("hit").inc()
        return Response(completion_body(completion, ticket.name), media_type=_JSON, headers=_CACHED)
    state.backpressure.admit(ticket.request.priority)
    wait_s = _preferred_wait(request, state.settings.gateway.wait_max_s)
    if wait_s:
        return await _wait(state, ticket, wait_s, until)
    await state.doorway.publish(ticket, until)
    answer = await _accepted(state, ticket)
    # Behind its own estimate, in front of the next one's.
    _announce(state, ticket)
    return answer


async def _wait(state: GatewayState, ticket: Ticket, wait_s: float, until: float) -> Response:
    async with state.audience.follows(ticket.request_id), state.awaited(ticket.request_id, until) as future:
        await state.doorway.publish(ticket, until)
        _announce(state, ticket)
        try:
            async with asyncio.timeout(wait_s):
                completion = await asyncio.shield(future)
        except (TimeoutError, ConnectionError):
            return await _accepted(state, ticket)
    if not ticket.ended_by(completion):
        raise other_content()
    await state.told(completion)
    metrics.SPEECH.labels("waited").inc()
    headers = {"Preference-Applied": f"wait={wait_s:g}"}
    return Response(completion_body(completion, ticket.name), media_type=_JSON, headers=headers)


async def _accepted(state: GatewayState, ticket: Ticket) -> Response:
    await state.audience.expects(ticket.request_id, ticket.request.expires_in_s)
    metrics.SPEECH.labels("queued").inc()
    url = f"/v1/requests/{ticket.name}"
    body = {
        "request_id": ticket.name,
        "status_url": url,
        "fingerprint": ticket.fingerprint,
        "estimated_start_s": state.backpressure.start_estimate_s(ticket.request.priority),
    }
    return Response(json.dumps(body), 202, {"Location": url}, media_type=_JSON)


def _announce(state: GatewayState, ticket: Ticket) -> None:
    state.backpressure.announce(ticket.fingerprint, ticket.request.priority, ticket.request.text)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 255:
        raise ProblemError(400, "invalid_request", "an Idempotency-Key is 1 to 255 characters")
    return key


def _preferred_wait(request: Request, longest: float) -> float | None:
    """Seconds a client likes to wait; what cannot be read is no preference, as RFC 7240 has it."""
    for preference in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip().lower() == "wait":
            return min(float(whole_number(value.strip(' "'))), longest)
    return None
