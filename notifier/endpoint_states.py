"""The states of named endpoints on `tts.endpoints`: read from the start, followed, and changed by hand."""

import asyncio

from infra.kafka.clients import bus_producer, new_consumer, start_client
from infra.kafka.ends import end_offsets
from infra.kafka.topics import ensure_topics, require_topics
from infra.logging import get_logger
from infra.settings import KafkaSettings
from notifier.bus_log import read_log
from notifier.directory import Directory
from schemas.base import utc_now
from schemas.codec import DecodeError, Message, decode, encode
from schemas.endpoints import EndpointChanged
from schemas.topics import ENDPOINTS

# Changes are rare and may be a second late; asking the broker less often is worth more.
_FETCH_MS = 1_000

_log = get_logger(__name__)


def message_of(change: EndpointChanged) -> Message:
    """The record of a change."""
    return encode(change, source="voxbus/notifier")


class StateReader:
    """Tells a directory what stands on the topic."""

    def __init__(self, settings: KafkaSettings, directory: Directory) -> None:
        self._settings = settings.model_copy(update={"fetch_max_wait_ms": max(_FETCH_MS, settings.fetch_max_wait_ms)})
        self._directory = directory
        self._known = asyncio.Event()

    async def known(self) -> None:
        """Wait until the directory knows what stood on the topic when reading began."""
        await self._known.wait()

    async def run(self) -> None:
        """Read, and go on reading; runs until cancelled. Without named endpoints there is nothing to read.

        Raises:
            ServerUnavailableError: the bus does not answer.
        """
        if not len(self._directory):
            self._known.set()
            await asyncio.Event().wait()
        consumer = new_consumer(self._settings, ENDPOINTS, group=None, client_id="voxbus-notify-endpoints")
        try:
            await start_client(consumer, self._settings)
            partitions = list(consumer.assignment())
            ends = await end_offsets(self._settings, partitions)
            while True:
                for records in (await consumer.getmany(timeout_ms=_FETCH_MS if self._known.is_set() else 50)).values():
                    for record in records:
                        self._hear(record.value)
                if not self._known.is_set():
                    positions = [await consumer.position(partition) for partition in partitions]
                    if all(at >= ends[partition] for at, partition in zip(positions, partitions, strict=True)):
                        self._known.set()
        finally:
            await consumer.stop()

    def _hear(self, value: bytes | None) -> None:
        try:
            self._directory.heard(decode(EndpointChanged, value))
        except DecodeError as error:
            _log.warning("a change of an endpoint is not readable", pointer=error.pointer)


async def endpoint_states(settings: KafkaSettings) -> dict[str, EndpointChanged]:
    """The newest state of every endpoint that ever had one.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topic.
    """
    require_topics(await ensure_topics(settings, create=False))
    states: dict[str, EndpointChanged] = {}
    async for record in read_log(settings, ENDPOINTS):
        try:
            change = decode(EndpointChanged, record.value)
        except DecodeError:
            continue
        states[change.name] = change
    return states


async def change_endpoint(settings: KafkaSettings, name: str, *, disabled: bool) -> None:
    """Disable or enable an endpoint for every notifier.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the bus has no such topic.
    """
    require_topics(await ensure_topics(settings, create=False))
    change = EndpointChanged(name=name, disabled=disabled, reason="by command" if disabled else "", at=utc_now())
    async with bus_producer(settings, client_id="voxbus-webhooks") as producer:
        await producer.deliver(ENDPOINTS, message_of(change))
