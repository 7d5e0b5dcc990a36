"""The last known state of one request: from the dedup app's web view, or from the status topic."""

import re
from urllib.parse import quote

import aiohttp

from infra.errors import UserError
from producers.connection import ClientSettings
from producers.terminal import note
from producers.topic_log import topic_log
from schemas import topics
from schemas.codec import DecodeError, decode
from schemas.completions import RequestStatus

_VIEW_TIMEOUT_S = 3.0
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


async def last_status(settings: ClientSettings, request_id: str) -> str | None:
    """JSON of what is known of a request, None when nothing is.

    Raises:
        UserError: the id cannot be one, or neither the web view nor Kafka answers.
    """
    if not _ID.fullmatch(request_id):
        raise UserError("a request id is 1 to 128 of A-Z a-z 0-9 _ . : -")
    if settings.dedup_web:
        answered, state = await _from_view(settings.dedup_web, request_id)
        if answered:
            return state
        note(f"the dedup app does not answer at {settings.dedup_web}; reading {topics.STATUS}")
    return await _from_log(settings, request_id)


async def _from_view(base: str, request_id: str) -> tuple[bool, str | None]:
    """Whether the view knew an answer, and the answer."""
    url = f"{base.rstrip('/')}/requests/{quote(request_id, safe='')}/"
    try:
        timeout = aiohttp.ClientTimeout(total=_VIEW_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            if response.status == 404:
                return True, None
            return response.status == 200, (await response.text()).strip()
    except (TimeoutError, aiohttp.ClientError, ValueError):
        return False, None


async def _from_log(settings: ClientSettings, request_id: str) -> str | None:
    """The furthest state seen; a terminal one stands, whatever else was said around it."""
    last: RequestStatus | None = None
    async with topic_log(settings.kafka, client_id="voxbus-status") as log:
        async for record in log.records(topics.STATUS, key=request_id.encode()):
            try:
                status = decode(RequestStatus, record.value)
            except DecodeError:
                continue
            if last is None or not last.state.terminal:
                last = status
    return last.model_dump_json(exclude_none=True) if last else None
