"""The outermost layer: bounds what is open, counts, and answers everything that goes wrong as a problem."""

import time

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.logging import get_logger
from producers.gateway import metrics
from producers.gateway.door_state import GatewayState
from producers.gateway.problems import ProblemError, internal_problem
from producers.gateway.routes import speech

_log = get_logger(__name__)
_READING = ("GET", "HEAD", "OPTIONS")
_ALWAYS = ("/healthz", "/readyz", "/metrics")  # answered however much is open


class Front:
    """ASGI: the busiest route goes straight to its handler, all others through the framework."""

    def __init__(self, app: ASGIApp, state: GatewayState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._state.open += 1
        try:
            await self._serve(scope, receive, counted)
        except ProblemError as problem:
            if status:
                _log.warning("answer broken off", code=problem.code)
            else:
                await problem.response()(scope, receive, counted)
        except Exception:
            _log.exception("not handled", path_length=len(scope["path"]))
            if not status:  # an answer that has begun is broken off
                await internal_problem().response()(scope, receive, counted)
        finally:
            self._state.open -= 1
            route = _route(scope)
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.LATENCY.labels(route).observe(time.perf_counter() - began)

    def _is_foreign(self, scope: Scope) -> bool:
        """Whether a page of another site asks. Browsers send such requests unasked; programs send no origin."""
        headers = dict(scope["headers"])
        origin: str = headers.get(b"origin", b"").decode("latin-1")
        if not origin or origin in self._state.settings.gateway.cors_origins:
            return False
        host: str = headers.get(b"host", b"").decode("latin-1")
        return origin.partition("://")[2] != host

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._state.open > self._state.settings.gateway.max_connections and scope["path"] not in _ALWAYS:
            raise ProblemError(503, "too_many_connections", "as much is open as this gateway serves", retry_after_s=1)
        if scope["method"] not in _READING and self._is_foreign(scope):
            raise _foreign()
        if scope["path"] == "/v1/speech" and scope["method"] == "POST":
            scope["app"] = self._app
            response = await speech.speak(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A refused handshake is an HTTP answer, and so a problem like any other."""
        handshake = True

        async def answered(message: Message) -> None:
            nonlocal handshake
            if handshake and message["type"] == "websocket.close":  # how the framework says that there is no such route
                await _refuse_handshake(ProblemError(404, "invalid_request", "Not Found"), send)
            else:
                handshake = False
                await send(message)

        if self._is_foreign(scope):
            await _refuse_handshake(_foreign(), send)
            return
        try:
            await self._app(scope, receive, answered)
        except OSError:
            return  # the other end is gone
        except Exception:
            _log.exception("not handled", path_length=len(scope["path"]))
            if handshake:
                await _refuse_handshake(internal_problem(), send)
            else:
                await send({"type": "websocket.close", "code": 1011})


class ProblemCors(CORSMiddleware):
    """A preflight that is refused is told so as a problem."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Whether a page may ask what it is about to ask."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        problem = ProblemError(response.status_code, "foreign_origin", bytes(response.body).decode()).response()
        kept = ("vary", "access-control-")
        problem.headers.update({name: text for name, text in response.headers.items() if name.startswith(kept)})
        return problem


async def _refuse_handshake(problem: ProblemError, send: Send) -> None:
    response = problem.response()
    start = {"type": "websocket.http.response.start", "status": problem.status, "headers": response.raw_headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})
    metrics.REQUESTS.labels("none", str(problem.status)).inc()


def _foreign() -> ProblemError:
    return ProblemError(403, "foreign_origin", "pages of other sites are not served; see cors_origins")


def _route(scope: Scope) -> str:
    """The pattern, never the path."""
    if scope["path"] == "/v1/speech":
        return "/v1/speech"
    return getattr(scope.get("route"), "path", "none")
