"""Where a request is, as the dedup app's web view tells it; whichever dedup worker is asked, the owner answers."""

from typing import Any
from urllib.parse import quote

from aiohttp import ClientError, ClientSession, ClientTimeout
from pydantic import ValidationError

from producers.gateway.problems import ProblemError
from schemas.completions import RequestStatus


class Projection:
    """Asks the dedup app."""

    def __init__(self, http: ClientSession, base_url: str, *, timeout_s: float) -> None:
        self._http, self._base, self._timeout_s = http, base_url.rstrip("/"), timeout_s

    async def status(self, request_id: str) -> RequestStatus | None:
        """The state of a request; None when dedup does not know it.

        Raises:
            ProblemError: 503, dedup does not answer, or its tables are on their way to another worker.
        """
        code, view = await self._get(f"/requests/{quote(request_id, safe='')}/")
        if code == 404:
            return None
        try:
            if code == 200:
                return RequestStatus.model_validate(view)
        except ValidationError:
            pass
        raise _away()

    async def stats(self) -> dict[str, Any]:
        """Figures of all dedup workers together.

        Raises:
            ProblemError: 503.
        """
        code, figures = await self._get("/stats/")
        if code != 200:
            raise _away()
        return figures

    async def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            async with self._http.get(self._base + path, timeout=ClientTimeout(self._timeout_s)) as response:
                return response.status, await response.json()
        except (ClientError, TimeoutError, ValueError):
            raise _away() from None


def _away() -> ProblemError:
    return ProblemError(503, "state_unavailable", "the state of requests cannot be told just now", retry_after_s=1)
