"""Looks up names for the HTTP client and hands it only addresses that were judged.

The client connects to exactly what it is handed, so a name that answers differently the next moment (DNS rebinding)
changes nothing: the next connection's addresses are judged again, whether they are looked up or remembered.
"""

import asyncio
import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from notifier import metrics
from notifier.settings import Network
from notifier.targets import TargetRefusedError, refusal

_LOOKUP_S = 5.0
# A burst of new connections asks once; what a name leads to is never older than this.
_KEPT_S = 2.0
_MAX_KEPT = 4_096
MAX_LOOKUPS = 64
"""Lookups that may run at once, each holding a thread."""
# Of these for names that did not lead anywhere lately, which strangers choose: the rest is for receivers known to be
# there, whatever name servers strangers keep silent.
_MAX_STRANGE = 48
# Of these again for names under one domain, since whoever owns a domain can make up any number of names.
_MAX_STRANGE_OF_DOMAIN = 8
_KNOWN_S = 600.0

_Question = tuple[str, int, socket.AddressFamily]


class LookupRefusedError(OSError):
    """Too much is being looked up already; the message says of what."""


class Lookups(AbstractResolver):
    """Asks name servers, once for all who ask for the same name, and gives up on them in time.

    Who gives up leaves the thread of the lookup behind, until the system's own resolver gives up too. Such a lookup
    counts until then, and nobody asks for the same name meanwhile.
    """

    def __init__(
        self,
        inner: AbstractResolver,
        *,
        limit_s: float = _LOOKUP_S,
        kept_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wire it.

        Args:
            inner: does one lookup.
            limit_s: for one lookup.
            kept_s: how long an answer is given again. Failures are not kept.
            clock: seconds, monotonic.
        """
        self._inner = inner
        self._limit_s = limit_s
        self._kept_s = _KEPT_S if kept_s is None else kept_s
        self._clock = clock
        self._running: dict[_Question, asyncio.Task[list[ResolveResult]]] = {}
        self._silent: set[_Question] = set()
        self._kept: OrderedDict[_Question, tuple[float, list[ResolveResult]]] = OrderedDict()
        self._known: OrderedDict[str, float] = OrderedDict()  # until when a host counts as known

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a name.

        Raises:
            LookupRefusedError: its last lookup is not over, or too many are running.
            OSError: the name is not known, or nobody said so in time.
        """
        question = (host, port, family)
        until, found = self._kept.get(question, (0.0, []))
        if self._clock() < until:
            return found
        task = self._running.get(question)
        if task is None:
            self._admit(host)
            task = self._running[question] = asyncio.create_task(self._inner.resolve(*question))
            task.add_done_callback(lambda done: self._heard(question, done))
        elif question in self._silent:
            raise _refused("silent", "its name server has not answered yet")
        try:
            # One that gives up waiting does not end the lookup for the others, nor its thread.
            async with asyncio.timeout(self._limit_s):
                return await asyncio.shield(task)
        except TimeoutError:
            self._silent.add(question)
            self._known.pop(host, None)
            raise OSError("no answer from the name server") from None

    async def close(self) -> None:
        """Give up what is being looked up, and close the inner resolver."""
        for task in self._running.values():
            task.cancel()
        await self._inner.close()

    def _admit(self, host: str) -> None:
        if len(self._running) >= MAX_LOOKUPS:
            raise _refused("all", "too many names are being looked up")
        if self._is_known(host):
            return
        strange = [other for other, _, _ in self._running if not self._is_known(other)]
        if len(strange) >= _MAX_STRANGE:
            raise _refused("strangers", "too many unknown names are being looked up")
        if sum(_domain(other) == _domain(host) for other in strange) >= _MAX_STRANGE_OF_DOMAIN:
            raise _refused("domain", "too many names of its domain are being looked up")

    def _is_known(self, host: str) -> bool:
        return self._clock() < self._known.get(host, 0.0)

    def _heard(self, question: _Question, done: asyncio.Task[list[ResolveResult]]) -> None:
        self._running.pop(question, None)
        self._kept.pop(question, None)
        self._silent.discard(question)
        if done.cancelled() or done.exception() is not None:
            return  # the exception is seen, even when everybody who asked has given up
        self._kept[question] = (self._clock() + self._kept_s, done.result())
        self._known[question[0]] = self._clock() + _KNOWN_S
        self._known.move_to_end(question[0])
        for remembered in (self._kept, self._known):
            if len(remembered) > _MAX_KEPT:
                remembered.popitem(last=False)


def _refused(reason: str, why: str) -> LookupRefusedError:
    metrics.LOOKUPS_REFUSED.labels(reason).inc()
    return LookupRefusedError(why)


def _domain(host: str) -> str:
    """What its owner's names end in, roughly: receivers under the same public suffix of two parts share a bound."""
    return ".".join(host.rstrip(".").rsplit(".", 2)[-2:])


def open_lookups(attempt_s: float, inner: AbstractResolver | None = None) -> Lookups:
    """Lookups as the system does them; close them.

    Args:
        attempt_s: what a whole attempt may take; a lookup gets a third of it at most.
        inner: does the lookups instead.
    """
    return Lookups(inner or ThreadedResolver(), limit_s=min(_LOOKUP_S, attempt_s / 3))


class CheckedResolver(AbstractResolver):
    """A resolver whose every answer may be connected to."""

    def __init__(self, inner: AbstractResolver, allowed: Collection[Network]) -> None:
        """`allowed`: networks beside the public ones. The inner resolver is not closed with this one."""
        self._inner = inner
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a name.

        Raises:
            OSError: the name is not known.
            TargetRefusedError: it is known, and no address of it may be reached.
        """
        found = await self._inner.resolve(host, port, family)
        refusals = [refusal(ipaddress.ip_address(answer["host"].partition("%")[0]), self._allowed) for answer in found]
        good = [answer for answer, why in zip(found, refusals, strict=True) if why is None]
        if found and not good:
            raise TargetRefusedError(f"its name leads to an address that is {refusals[0]}")
        return good

    async def close(self) -> None:
        """Nothing of its own to close."""
