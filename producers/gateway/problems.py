"""Errors as problem details (RFC 9457): every refusal is one JSON object with a code of ours."""

import json
import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TITLES = {
    400: "Bad request",
    401: "API key missing or unknown",
    403: "Not yours",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Request not valid",
    429: "Too many requests",
    431: "Head too large",
    500: "Internal error",
    502: "Audio store does not answer",
    503: "Not available now",
    504: "Took too long",
}


class ProblemError(Exception):
    """A refusal.

    `pointer` is a JSON pointer into the body, to the field at fault, as a URI fragment has it; `parameter` names one of
    the path instead; `retry_after_s` is told in whole seconds, at least one; `members` stand beside the usual ones.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        parameter: str | None = None,
        retry_after_s: float | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.parameter = parameter
        self.retry_after_s = None if retry_after_s is None else max(1, math.ceil(retry_after_s))
        self.members = members or {}

    def body(self) -> dict[str, object]:
        """The problem as JSON data."""
        body: dict[str, object] = {
            "type": f"urn:voxbus:problem:{self.code}",
            "title": _TITLES.get(self.status, "Error"),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.pointer is not None:
            body["errors"] = [{"pointer": f"#{self.pointer}", "detail": self.detail}]
        elif self.parameter is not None:
            body["errors"] = [{"parameter": self.parameter, "detail": self.detail}]
        if self.retry_after_s is not None:  # where there is no header to say it in
            body["retry_after_s"] = self.retry_after_s
        return {**body, **self.members}

    def response(self) -> Response:
        """The answer that says so."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return Response(
            json.dumps(self.body(), ensure_ascii=False), self.status, headers, media_type="application/problem+json"
        )


async def on_problem(_request: Request, error: Exception) -> Response:
    """Answer a refusal of ours."""
    assert isinstance(error, ProblemError)
    return error.response()


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Answer what the framework refuses (unknown route, wrong method) in the same form."""
    assert isinstance(error, HTTPException)
    response = ProblemError(error.status_code, "invalid_request", str(error.detail)).response()
    response.headers.update(error.headers or {})
    return response


async def on_validation(_request: Request, error: Exception) -> Response:
    """Answer a parameter that the framework finds wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return ProblemError(422, "invalid_request", str(first["msg"]), parameter=str(first["loc"][-1])).response()


def pointer_of(location: Sequence[str | int], document: object, *, missing: bool) -> str:
    """Where in a JSON object a validation error is: a JSON pointer in the form of a URI fragment (RFC 6901, 3 and 6).

    Args:
        location: as the validator tells it, with the names of the kinds it tried in between, which nobody sent.
        document: what was sent; no field of ours is an array.
        missing: whether the last part is what should have been there.
    """
    pointer = ""
    for number, part in enumerate(location):
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif not (missing and number == len(location) - 1):
            continue
        pointer += "/" + quote(str(part).replace("~", "~0").replace("/", "~1"), safe="~")
    return pointer


async def on_unexpected(_request: Request, _error: Exception) -> Response:
    """Anything else. The framework raises the error again after this answer, so that it is logged."""
    return internal_problem().response()


def internal_problem() -> ProblemError:
    """A fault of ours: no detail leaves the house."""
    return ProblemError(500, "internal", "the gateway failed; its log says where")
