"""Looks up names for the HTTP client and hands it only addresses that were judged.

The client connects to exactly what it is handed, so a name that answers differently the next moment (DNS rebinding)
changes nothing: the next connection is looked up and judged again.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult

from notifier.settings import Network
from notifier.targets import TargetRefusedError, refusal

_Question = tuple[str, int, socket.AddressFamily]


class CheckedResolver(AbstractResolver):
    """A resolver whose every answer may be connected to.

    Who asks for a name that is just being looked up waits for that answer: a name server that does not answer holds
    one thread for its name, not one for every connection.
    """

    def __init__(self, inner: AbstractResolver, allowed: Collection[Network]) -> None:
        self._inner = inner
        self._allowed = allowed
        self._running: dict[_Question, asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a name.

        Raises:
            OSError: the name is not known.
            TargetRefusedError: it is known, and no address of it may be reached.
        """
        found = await self._look_up((host, port, family))
        refusals = [refusal(ipaddress.ip_address(answer["host"].partition("%")[0]), self._allowed) for answer in found]
        good = [answer for answer, why in zip(found, refusals, strict=True) if why is None]
        if found and not good:
            raise TargetRefusedError(f"its name leads to an address that is {refusals[0]}")
        return good

    async def close(self) -> None:
        """Give up what is being looked up, and close the inner resolver."""
        for task in self._running.values():
            task.cancel()
        await self._inner.close()

    async def _look_up(self, question: _Question) -> list[ResolveResult]:
        task = self._running.get(question)
        if task is None:
            task = self._running[question] = asyncio.create_task(self._inner.resolve(*question))
            task.add_done_callback(lambda done: self._forget(question, done))
        # One that gives up waiting does not end the lookup for the others.
        return await asyncio.shield(task)

    def _forget(self, question: _Question, done: asyncio.Task[list[ResolveResult]]) -> None:
        self._running.pop(question, None)
        if not done.cancelled():
            done.exception()  # seen, even when everybody who asked has given up
