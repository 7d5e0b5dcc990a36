"""Answers that take long to be sent: they hold a slot, and let go of readers that leave or take nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from infra.logging import get_logger
from producers.gateway.problems import ProblemError

_log = get_logger(__name__)
T = TypeVar("T")


class HeldResponse(StreamingResponse):
    """A stream that gives back what it holds when it ends, however it ends."""

    def __init__(
        self,
        body: AsyncIterator[bytes],
        resources: AsyncExitStack,
        *,
        media_type: str,
        headers: Mapping[str, str],
        send_timeout_s: float,
        on_cut: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(self._counted(body), media_type=media_type, headers=headers)
        self._resources, self._send_timeout_s, self._on_cut = resources, send_timeout_s, on_cut
        self._whole = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(self._send_timeout_s):
                await send(message)

        async with self._resources:
            try:
                await super().__call__(scope, receive, bounded)
            except TimeoutError:
                _log.info("let go of a reader that took nothing", seconds=self._send_timeout_s)
            finally:
                if not self._whole:
                    self._on_cut()

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for block in body:
            yield block
        self._whole = True


async def unless_gone(request: Request, coming: Coroutine[Any, Any, T]) -> T:
    """What comes, while the client is there; its body must have been read.

    Raises:
        ProblemError: the client left. Nobody will read it.
    """
    working, leaving = asyncio.create_task(coming), asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ProblemError(400, "invalid_request", "the client left before there was anything to send")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose first block was looked at before."""
    yield first
    async for block in rest:
        yield block


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
