"""Who waits for what: completions as futures, status events as callbacks, both by request id and both bounded."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from schemas.codec import DecodeError, decode
from schemas.completions import CompletionData, RequestCompleted, RequestStatus

OnStatus = Callable[[RequestStatus], None]
OnLost = Callable[[Exception], None]


class Completions:
    """Futures of requests whose end is awaited. At most `limit` at a time; more wait for room.

    A future's result is the completion, good or bad; its exception means that listening ended.
    """

    def __init__(self, limit: int) -> None:
        self._room = asyncio.Semaphore(limit)
        self._waiting: dict[bytes, list[asyncio.Future[CompletionData]]] = {}

    def __len__(self) -> int:
        return sum(len(futures) for futures in self._waiting.values())

    @property
    def full(self) -> bool:
        """Whether one more would have to wait."""
        return self._room.locked()

    async def add(self, request_id: str) -> asyncio.Future[CompletionData]:
        """Wait for one more; call before the request is published."""
        await self._room.acquire()
        future: asyncio.Future[CompletionData] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id.encode(), []).append(future)
        return future

    def waits_for(self, key: bytes) -> bool:
        """Whether somebody awaits the end of a request."""
        return key in self._waiting

    def drop(self, request_id: str, future: asyncio.Future[CompletionData]) -> None:
        """Wait no longer. Dropping what has ended changes nothing."""
        key = request_id.encode()
        futures = self._waiting.get(key, [])
        if future in futures:
            futures.remove(future)
            self._room.release()
            if not futures:
                del self._waiting[key]

    def on_record(self, key: bytes | None, value: bytes | None) -> None:
        """A record of `tts.completed`. Those nobody waits for are not even decoded."""
        if key is None or key not in self._waiting:
            return
        try:
            completion = decode(RequestCompleted, value).data
        except DecodeError:
            return
        for future in self._waiting.pop(key):
            self._room.release()
            if not future.done():
                future.set_result(completion)

    def on_lost(self, error: Exception) -> None:
        """Listening ended: those who wait now will hear nothing."""
        for futures in self._waiting.values():
            for future in futures:
                self._room.release()
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # somebody may never ask; that is no news for the log
        self._waiting.clear()


class Followers:
    """Callbacks that see every status of a request until its end."""

    def __init__(self) -> None:
        self._callbacks: dict[bytes, list[tuple[OnStatus, OnLost | None]]] = {}
        self._ends: dict[bytes, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, request_id: str, callback: OnStatus, on_lost: OnLost | None = None) -> None:
        """Follow a request. `on_lost` is called when listening ends before the request does."""
        self._callbacks.setdefault(request_id.encode(), []).append((callback, on_lost))

    def drop(self, request_id: str, callback: OnStatus) -> None:
        """Follow no longer. Dropping what has ended changes nothing."""
        key = request_id.encode()
        kept = [entry for entry in self._callbacks.pop(key, []) if entry[0] is not callback]
        if kept:
            self._callbacks[key] = kept

    async def seen_end(self, request_id: str, *, timeout_s: float) -> None:
        """Wait until those who follow a request have seen its end, or `timeout_s` is over."""
        key = request_id.encode()
        if key not in self._callbacks:
            return
        ended = self._ends.setdefault(key, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        self._ends.pop(key, None)

    def on_record(self, key: bytes | None, value: bytes | None) -> None:
        """A record of `tts.status`."""
        if key is None or key not in self._callbacks:
            return
        try:
            status = decode(RequestStatus, value)
        except DecodeError:
            return
        entries = self._callbacks.pop(key) if status.state.terminal else list(self._callbacks[key])
        for callback, _ in entries:
            _call(callback, status)
        if status.state.terminal and key in self._ends:
            self._ends[key].set()

    def on_lost(self, error: Exception) -> None:
        """Listening ended: those who follow now will hear nothing."""
        entries = [entry for entries in self._callbacks.values() for entry in entries]
        self._callbacks.clear()
        for ended in self._ends.values():
            ended.set()
        for _, on_lost in entries:
            if on_lost is not None:
                on_lost(error)


def _call(callback: OnStatus, status: RequestStatus) -> None:
    """A callback that fails must not end the listening of all others."""
    try:
        callback(status)
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "an on_status callback failed", "exception": error}
        )
