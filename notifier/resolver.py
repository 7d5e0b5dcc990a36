"""Looks up names for the HTTP client and hands it only addresses that were judged.

The client connects to exactly what it is handed, so a name that answers differently the next moment (DNS rebinding)
changes nothing: the next connection is looked up and judged again.
"""

import ipaddress
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult

from notifier.settings import Network
from notifier.targets import TargetRefusedError, refusal


class CheckedResolver(AbstractResolver):
    """A resolver whose every answer may be connected to."""

    def __init__(self, inner: AbstractResolver, allowed: Collection[Network]) -> None:
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
        """Close the inner resolver."""
        await self._inner.close()
