"""The refusals that the OpenAPI document lists: for each route, status and code an example as it would be answered."""

from collections.abc import Mapping
from typing import Any

from producers.gateway.keys import KEY_WANTED
from producers.gateway.limits import rate_limited
from producers.gateway.problems import ProblemError, internal_problem
from producers.gateway.tickets import other_content, unknown_request
from schemas.codes import ErrorCode

_SLOW, _AWAY = "no audio came in time", "the message bus does not answer"
_EXAMPLES: tuple[ProblemError, ...] = (
    ProblemError(400, "invalid_request", "the body broke off"),
    ProblemError(401, "invalid_request", KEY_WANTED),
    ProblemError(403, "foreign_origin", "pages of other sites are not served; see cors_origins"),
    ProblemError(404, "invalid_request", "Not Found"),
    unknown_request(),
    ProblemError(405, "invalid_request", "Method Not Allowed"),
    ProblemError(408, "invalid_request", "the body did not come within 15 s"),
    other_content(),
    ProblemError(409, "not_ready", "the request is synthesizing", retry_after_s=1),
    ProblemError(409, "cancelled", "the request is cancelled"),
    ProblemError(409, "expired", "the request is expired"),
    ProblemError(409, "bad_audio", "what was made is silent"),
    ProblemError(413, "invalid_request", "the body is larger than 131072 bytes"),
    ProblemError(422, "invalid_request", "Field required", pointer="/text"),
    ProblemError(422, "request_conflict", "this Idempotency-Key came with another request before"),
    ProblemError(422, "unsupported_voice", "no such voice", pointer="/voice"),
    ProblemError(422, "unsupported_dialect", "the engine does not speak it", pointer="/dialect"),
    ProblemError(422, "text_not_speakable", "nothing of the text can be spoken", pointer="/text"),
    rate_limited(1),
    ProblemError(429, "queue_full", "too much is queued for bulk requests", retry_after_s=12),
    ProblemError(431, "invalid_request", "the head is larger than 65536 bytes"),
    internal_problem(),
    ProblemError(502, "storage_unavailable", "the stored audio cannot be fetched", retry_after_s=1),
    ProblemError(502, "engine_crashed", "the engine crashed"),
    ProblemError(503, "bus_unavailable", _AWAY, retry_after_s=2),
    ProblemError(503, "state_unavailable", "the state of requests cannot be told just now", retry_after_s=1),
    ProblemError(503, "too_many_listeners", "as many streams are open as this gateway serves", retry_after_s=5),
    ProblemError(503, "too_many_connections", "as much is open as this gateway serves", retry_after_s=1),
    ProblemError(503, "not_ready", _AWAY, retry_after_s=1, members={"ready": False, "waiting_for": {"bus": _AWAY}}),
    ProblemError(504, "deadline_exceeded", _SLOW, retry_after_s=1),
)
_MEANING = {
    400: "The request cannot be read.",
    401: "No known API key came along.",
    403: "A page of a site that is not among `cors_origins` asks.",
    404: "No such request, or not yours.",
    405: "The path does not know the method.",
    408: "The request did not come in time.",
    409: "Not ready, ended without audio, or the id is taken.",
    413: "The body is too large.",
    422: "The request is not valid; `errors` names the field.",
    429: "Too many requests, or too much is queued; see `Retry-After`.",
    431: "The head is too large.",
    500: "A fault of the gateway.",
    502: "Stored audio cannot be fetched, or the synthesis failed.",
    503: "The gateway, or a server behind it, cannot serve this now; see `Retry-After`.",
    504: "No audio came in time.",
}
CODES = sorted({*ErrorCode, *(problem.code for problem in _EXAMPLES)})
"""All that `code` can be."""

RETRY_AFTER = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds.", "example": 2}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to ask.", "example": "Bearer"}},
    405: {"Allow": {"schema": {"type": "string"}, "description": "Methods that it knows.", "example": "POST"}},
    **{status: {"Retry-After": RETRY_AFTER} for status in (409, 429, 502, 503, 504)},
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": ["urn:voxbus:problem:rate_limited"]},
        "title": {"type": "string", "description": "The same for every problem of a status."},
        "status": {"type": "integer", "description": "The status of the answer."},
        "code": {"type": "string", "enum": CODES, "description": "Why; for programs."},
        "detail": {"type": "string", "description": "Why; for people. Never repeats what was sent."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body, as a URI fragment."},
                    "parameter": {"type": "string", "description": "Name of a parameter of the path."},
                    "detail": {"type": "string"},
                },
            },
        },
        "retry_after_s": {"type": "integer", "description": "What `Retry-After` says."},
    },
}


def problems(*wanted: int | tuple[int, *tuple[str, ...]]) -> dict[int | str, dict[str, Any]]:
    """Responses of a route.

    Args:
        wanted: statuses, each alone or with those of its codes that the route can answer.
    """
    found: dict[int | str, dict[str, Any]] = {}
    for one in wanted:
        status, *codes = one if isinstance(one, tuple) else (one,)
        found[int(status)] = _response(int(status), codes)
    return found


def outside_of_routes() -> dict[str, dict[str, Any]]:
    """What any connection may be answered before there is a request that a route could serve."""
    return {
        "NoSuchPath": _response(404, ["invalid_request"]),
        "NoSuchMethod": _response(405, []),
        "TooSlow": _response(408, []),
        "HeadTooLarge": _response(431, []),
        "NoHttp": _response(400, []),
    }


def _response(status: int, codes: "list[Any]") -> dict[str, Any]:
    told = [problem for problem in _EXAMPLES if problem.status == status and (not codes or problem.code in codes)]
    content = {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "examples": {problem.code: {"value": problem.body()} for problem in told},
    }
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": _MEANING[status], **headers, "content": {"application/problem+json": content}}
