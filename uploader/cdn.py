"""Tells a CDN which addresses are new. A CDN that does not listen delays nobody: it will ask the origin itself."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from infra.logging import get_logger
from uploader import metrics
from uploader.patience import delays
from uploader.settings import CdnSettings

_log = get_logger(__name__)


class CdnRefresher:
    """POSTs `{"urls": [...]}` to the refresh address."""

    def __init__(self, session: aiohttp.ClientSession, settings: CdnSettings) -> None:
        self._session = session
        self._settings = settings

    @property
    def configured(self) -> bool:
        """Whether there is a CDN to tell."""
        return self._settings.refresh_url is not None

    async def refresh(self, urls: Sequence[str]) -> bool:
        """Refresh addresses; a failure is logged and counted, never raised.

        Returns:
            Whether the CDN took it (True when there is none).
        """
        if self._settings.refresh_url is None:
            return True
        reason = ""
        for attempt, delay in zip(range(1, self._settings.attempts + 1), delays(), strict=False):
            reason = await self._post(self._settings.refresh_url, urls)
            if not reason:
                metrics.CDN_REFRESHES.labels("done").inc()
                return True
            if attempt < self._settings.attempts:
                await asyncio.sleep(delay)
        metrics.CDN_REFRESHES.labels("failed").inc()
        _log.warning("CDN not refreshed", reason=reason, attempts=self._settings.attempts, urls=len(urls))
        return False

    async def _post(self, address: str, urls: Sequence[str]) -> str:
        """One attempt; returns why it failed, "" when it did not."""
        token = self._settings.token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        try:
            async with self._session.post(address, json={"urls": list(urls)}, headers=headers) as response:
                return "" if response.ok else f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__


@asynccontextmanager
async def cdn_refresher(settings: CdnSettings) -> AsyncIterator[CdnRefresher]:
    """A refresher with its own connections."""
    timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield CdnRefresher(session, settings)
