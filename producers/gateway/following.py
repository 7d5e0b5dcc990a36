"""States of one request as they come, for one follower; slow followers miss the middle, never the end."""

import asyncio
from types import TracebackType
from typing import Self

from producers.replies import Followers
from schemas.completions import RequestStatus

_KEPT = 100


class Following:
    """Use it in a `with` block; it hears from its making on."""

    def __init__(self, followers: Followers, request_id: str) -> None:
        self._followers, self._request_id = followers, request_id
        self._news: asyncio.Queue[RequestStatus] = asyncio.Queue(_KEPT)
        followers.add(request_id, self._hear)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Follow no longer."""
        self._followers.drop(self._request_id, self._hear)

    async def next(self, timeout_s: float) -> RequestStatus | None:
        """The next state; None when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._news.get()
        except TimeoutError:
            return None

    def _hear(self, status: RequestStatus) -> None:
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(status)
