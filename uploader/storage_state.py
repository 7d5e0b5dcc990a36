"""Whether object storage answers: decides readiness and whether audio is read from the bus."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from infra.health import Readiness
from infra.logging import get_logger
from uploader import metrics
from uploader.object_store import ObjectStore, StorageUnavailableError
from uploader.patience import Patience

_log = get_logger(__name__)
_DOWN_AFTER_S = 2.0
_PROBE_EVERY_S = 1.0
_FORGOTTEN_AFTER_S = 30.0  # longer than any pause between attempts: then the failure is another one

T = TypeVar("T")


class StorageState:
    """Storage is down when no request got through for two seconds although some were tried.

    One failing request among good ones is retried, and stops nobody else.
    """

    def __init__(self, readiness: Readiness, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._readiness = readiness
        self._clock = clock
        self._failing_since: float | None = None
        self._failed_at = 0.0
        self._down = False
        readiness.met("storage")

    @property
    def down(self) -> bool:
        """Whether to wait."""
        return self._down

    def answered(self) -> None:
        """A request got through."""
        self._failing_since = None
        if self._down:
            self._down = False
            self._readiness.met("storage")
            _log.info("object storage answers again")

    def failed(self) -> None:
        """A request did not get through."""
        now = self._clock()
        if self._failing_since is None or now - self._failed_at > _FORGOTTEN_AFTER_S:
            self._failing_since = now
        self._failed_at = now
        if not self._down and now - self._failing_since >= _DOWN_AFTER_S:
            self._down = True
            self._readiness.unmet("storage", "object storage does not answer")
            _log.error("object storage does not answer; reading pauses until it does")

    async def insist(self, patience: Patience, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """Do one storage operation, again and again while there is patience.

        Raises:
            StorageUnavailableError: the time is up.
        """

        async def attempt() -> T:
            result = await call()
            self.answered()
            return result

        def retrying() -> None:
            self.failed()
            metrics.STORAGE_RETRIES.labels(operation).inc()

        return await patience.insist(attempt, on=StorageUnavailableError, retrying=retrying)

    async def probe(self, store: ObjectStore) -> None:
        """Ask a storage that is down whether it is back, as perhaps no work is left that would; a background task."""
        while True:
            await asyncio.sleep(_PROBE_EVERY_S)
            if self._down:
                try:
                    await store.check()
                except StorageUnavailableError:
                    continue
                self.answered()
