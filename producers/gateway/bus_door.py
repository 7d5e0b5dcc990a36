"""The gateway's way to the bus, which may be away: publishing fails fast and clearly, and comes back by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import BusProducer, bus_producer
from infra.logging import get_logger
from infra.settings import KafkaSettings
from producers.gateway.problems import ProblemError
from schemas.codec import Message

_log = get_logger(__name__)
_RECONNECT_S = 0.5
_RETRY_AFTER_S = 2.0
_CLOSE_S = 5.0
# Each produce request costs the broker milliseconds on object storage. At 170 requests/s on 2 cores, 8 instead of 2 ms
# halve the P99 of accepted requests, as fewer are sent; at low load they cost 6 ms.
_LINGER_MS = 8
_LEAST_SHARE = 1 / 3  # of the timeout, for a publish whose caller has waited for other things before


class BusDoor:
    """Publishes within a bound of time. Make one with `bus_door`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._producer: BusProducer | None = None
        self._lost = asyncio.Event()
        self._last_good = 0.0

    @property
    def open(self) -> bool:
        """Whether the bus answered last time."""
        return self._producer is not None

    async def publish(self, topic: str, message: Message, until: float | None = None) -> None:
        """Publish and wait until the bus has it.

        Args:
            topic: its own name.
            message: what to publish.
            until: moment of the loop's clock at which the caller wants its answer; `timeout_s` from now when None.

        Raises:
            ProblemError: 503, the bus does not answer. The message may have arrived all the same.
        """
        producer = self._producer
        if producer is None:
            raise _down()
        now = asyncio.get_running_loop().time()
        # Whatever was waited for before, a bus that is well has time enough to take it.
        until = now + self._timeout_s if until is None else max(until, now + self._timeout_s * _LEAST_SHARE)
        try:
            async with asyncio.timeout_at(until):
                await producer.deliver(topic, message)
        except (TimeoutError, KafkaError, OSError):
            # One slow message among good ones is no outage.
            if time.monotonic() - self._last_good > self._timeout_s:
                self._lose(producer)
            raise _down() from None
        self._last_good = time.monotonic()

    async def keep_connected(self, settings: KafkaSettings) -> None:
        """Connect, again and again until it works. Until then callers are told at once that the bus is down."""
        # What could not be sent is given up soon after its caller was told so, not carried on for the usual 20 s.
        timeout_ms, linger_ms = max(1_000, int(self._timeout_s * 2_000)), max(settings.linger_ms, _LINGER_MS)
        settings = settings.model_copy(update={"request_timeout_ms": timeout_ms, "linger_ms": linger_ms})
        while True:
            try:
                async with bus_producer(settings, client_id="voxbus-gateway") as producer:
                    self._lost.clear()
                    self._producer = producer
                    _log.info("bus reached")
                    await self._lost.wait()
            except (UserError, KafkaError, OSError) as error:
                _log.warning("bus not reached", error=type(error).__name__)
            finally:
                self._producer = None
            await asyncio.sleep(_RECONNECT_S)

    def _lose(self, producer: BusProducer) -> None:
        """Unless another has taken its place: what fails late on the old one says nothing about the new."""
        if producer is self._producer:
            self._producer = None
            self._lost.set()


@asynccontextmanager
async def bus_door(settings: KafkaSettings, *, timeout_s: float) -> AsyncIterator[BusDoor]:
    """A door that opens as soon as the bus is there; the block does not wait for it."""
    door = BusDoor(timeout_s)
    connecting = asyncio.create_task(door.keep_connected(settings), name="bus door")
    try:
        yield door
    finally:
        connecting.cancel()
        await asyncio.wait({connecting}, timeout=_CLOSE_S)


def _down() -> ProblemError:
    return ProblemError(503, "bus_unavailable", "the message bus does not answer", retry_after_s=_RETRY_AFTER_S)
