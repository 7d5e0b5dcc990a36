"""The bus as a client needs it: deliver messages, and listen to a topic from now on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import BusProducer, bus_producer, new_consumer, start_client
from infra.kafka.topics import ensure_topics
from infra.settings import KafkaSettings
from producers.errors import PublishError
from producers.topic_log import topic_log
from schemas import topics
from schemas.codec import Message

OnRecord = Callable[[bytes | None, bytes | None], None]
"""Takes key and value of a record. Called on the event loop: it only looks up and hands over, and never raises."""
OnLost = Callable[[Exception], None]
"""Called once when listening ended by itself; nothing comes any more. Listening anew is the caller's decision."""

# Records handed over between two turns of the event loop.
_BATCH = 500


class Bus(Protocol):
    """What `SpeechClient` stands on."""

    async def deliver(self, topic: str, messages: Sequence[Message]) -> None:
        """Publish and wait until the bus has them all."""

    async def listen(self, topic: str, on_record: OnRecord, on_lost: OnLost) -> None:
        """Hand over every record published to `topic` after this call has returned."""

    def past(self, topic: str, keys: frozenset[bytes]) -> AsyncIterator[tuple[bytes, bytes | None]]:
        """Key and value of what stands on `topic` under these keys now."""


class KafkaBus:
    """The real one. Use it as an async context manager."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._resources = AsyncExitStack()
        self._producer: BusProducer | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            producer = await resources.enter_async_context(bus_producer(self._settings, client_id=self._client_id))
            await self._require_topic()
            self._resources = resources.pop_all()
        self._producer = producer
        return self

    async def __aexit__(self, *_: object) -> None:
        self._producer = None
        await self._resources.aclose()

    async def deliver(self, topic: str, messages: Sequence[Message]) -> None:
        """Publish and wait until the brokers have them all.

        Raises:
            PublishError: one was not taken after the client's own retries; others may have been.
        """
        if self._producer is None:
            raise RuntimeError("the client is not open; use `async with`")
        try:
            await self._producer.deliver(topic, *messages)
        except KafkaError as error:
            address = self._settings.bootstrap_servers
            raise PublishError(f"Kafka at {address} did not take the message: {type(error).__name__}") from error

    async def listen(self, topic: str, on_record: OnRecord, on_lost: OnLost) -> None:
        """Read all partitions of a topic, without a group, from their present ends.

        Raises:
            ServerUnavailableError: the bus does not answer.
        """
        consumer = new_consumer(
            self._settings, topic, group=None, client_id=f"{self._client_id}-{topic}", from_start=False
        )
        self._resources.push_async_callback(consumer.stop)
        await start_client(consumer, self._settings)
        # The ends are looked up here, not at the first fetch: what is published next must not be missed. The embedded
        # broker may name one that is too early (see infra.kafka.ends); what then comes first, nobody waits for.
        await asyncio.gather(*(consumer.position(partition) for partition in consumer.assignment()))
        task = asyncio.create_task(_hand_over(consumer, on_record, on_lost), name=f"listen {topic}")
        self._resources.push_async_callback(_cancelled, task)

    async def past(self, topic: str, keys: frozenset[bytes]) -> AsyncIterator[tuple[bytes, bytes | None]]:
        """Read all of a topic, up to its present end.

        Raises:
            UserError: the bus does not answer.
        """
        async with topic_log(self._settings, client_id=f"{self._client_id}-past") as log:
            async for record in log.records(topic):
                if record.key in keys:
                    yield record.key, record.value

    async def _require_topic(self) -> None:
        """Asked of the list of all topics: asking for one by name makes many brokers create it, with their defaults."""
        found = {state.name: state for state in await ensure_topics(self._settings, create=False)}
        if found[topics.REQUESTS].result == "missing":
            name, address = self._settings.namespace + topics.REQUESTS, self._settings.bootstrap_servers
            raise UserError(f"Kafka at {address} has no topic {name}; create the topics with `voxbus topics`")


async def _hand_over(consumer: AIOKafkaConsumer, on_record: OnRecord, on_lost: OnLost) -> None:
    try:
        while True:
            batches = await consumer.getmany(timeout_ms=1_000, max_records=_BATCH)
            for records in batches.values():
                for record in records:
                    on_record(record.key, record.value)
    except Exception as error:  # whatever ended it, those who wait must hear of it
        on_lost(error)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
