"""The gateway's TCP connections, bounded in number, and in time and size of what they send before a request is there.

A connection that waits for nothing can be had back: when more come than may be open, the one that has been idle longest
is closed. So connections that send nothing keep nobody out; only as many requests as may be open do, and then a few
connections more are let in, on which `Front` answers health checks and refuses the rest.
"""

from asyncio import TimerHandle, Transport
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request
from websockets.server import ServerProtocol

from producers.gateway import metrics
from producers.gateway.problems import ProblemError

_HEAD_S = 10.0  # for a request's head, from its connection or its first byte on
_MAX_HEAD_BYTES = 65_536
_RESERVE = 16  # connections above the bound


class BoundedProtocol(HttpToolsProtocol):
    """HTTP on one connection. uvicorn's `limit_concurrency` is the number of connections that may be open."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # uvicorn's own arguments, handed through
        # Taken from uvicorn, whose own way is to refuse requests while idle connections stay.
        self._bound, self.limit_concurrency = self.limit_concurrency, None
        self._in_head = True
        self._head_bytes = 0
        self._timer: TimerHandle | None = None
        self._idle_since = self.loop.time()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """One more, perhaps in place of another."""
        super().connection_made(transport)
        self._arm()
        if self._bound is None or len(self.connections) <= self._bound:
            return
        idle = [one for one in self.connections if isinstance(one, BoundedProtocol) and one.idle and one is not self]
        if idle:
            min(idle, key=lambda one: one._idle_since).transport.close()
        elif len(self.connections) > self._bound + _RESERVE:
            self._refuse(
                ProblemError(503, "too_many_connections", "as much is open as this gateway serves", retry_after_s=1)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._disarm()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Whether no request is being served on it."""
        return (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.get_protocol() is not self or not self.idle:
            return
        # Part of a head, or the rest of a body that was answered without it: neither may take for ever.
        self._arm()
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(ProblemError(431, "invalid_request", f"the head is larger than {_MAX_HEAD_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """A request is there."""
        self._disarm()
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another request's head."""
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        """Idle from now on."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand over to the WebSocket protocol, which would refuse a malformed handshake in plain text."""
        problem = _malformed(self.scope["method"], self.headers)
        if problem is None:
            super().handle_websocket_upgrade()
        else:
            self._refuse(problem)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(ProblemError(400, "invalid_request", msg))

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes:
            self._refuse(ProblemError(408, "invalid_request", f"the request did not come within {_HEAD_S:g} s"))
        else:
            self.transport.close()

    def _refuse(self, problem: ProblemError) -> None:
        """Answer outside of any request, and close."""
        if self.transport.is_closing():
            return
        response = problem.response()
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", bytes(response.body)]))
        self.transport.close()
        metrics.REQUESTS.labels("none", str(problem.status)).inc()


def _malformed(method: str, headers: list[tuple[bytes, bytes]]) -> ProblemError | None:
    """What is wrong with the handshake of a WebSocket, as the library would find it."""
    if method != "GET":
        return ProblemError(400, "invalid_request", "no WebSocket: it begins with GET")
    told = Headers()
    for name, value in headers:
        told[name.decode("latin-1")] = value.decode("latin-1")
    try:
        ServerProtocol().process_request(Request("/", told))
    except InvalidHandshake as error:
        return ProblemError(400, "invalid_request", f"no WebSocket: {error}")
    return None
