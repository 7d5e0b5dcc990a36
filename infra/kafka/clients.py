"""Kafka producers and consumers from settings, with this installation's namespace on every name."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from infra.errors import ServerUnavailableError
from infra.kafka.patience import fetch_patiently
from infra.settings import KafkaSettings
from schemas.codec import Message

# One record may hold the largest dead letter; the broker's own default is 1,048,576.
_MAX_REQUEST_BYTES = 1_048_576
# What gathers for one partition while the broker is busy goes out at once: aiokafka has one request in flight per
# broker, and its default of 16 KiB makes a slow broker's round trip the limit (25 events per partition and trip).
_MAX_BATCH_BYTES = 262_144
_FETCH_BYTES = 1_048_576  # aiokafka's own default


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """What producers, consumers and admin clients need to reach the cluster."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": settings.request_timeout_ms,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.security_protocol.startswith("SASL"):
        password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": password,
        }
    return options


def unreachable(settings: KafkaSettings) -> ServerUnavailableError:
    """The message for a bus that does not answer."""
    return ServerUnavailableError(
        "Kafka",
        settings.bootstrap_servers,
        "start one with `voxbus up`, or set VOXBUS_KAFKA__BOOTSTRAP_SERVERS",
    )


async def start_client(client: Any, settings: KafkaSettings) -> None:
    """Start an aiokafka client, waiting for a bus that is still coming up.

    Raises:
        ServerUnavailableError: it did not answer within `start_timeout_s`.
    """
    try:
        async with asyncio.timeout(settings.start_timeout_s):
            while True:
                try:
                    await client.start()
                    return
                except KafkaError:
                    await asyncio.sleep(0.2)
    except TimeoutError:
        raise unreachable(settings) from None


class BusProducer:
    """Publishes encoded messages; knows the namespace, so that stages speak of topics by their own names."""

    def __init__(self, producer: AIOKafkaProducer, namespace: str) -> None:
        self._producer = producer
        self._namespace = namespace

    async def send(self, topic: str, message: Message, *, partition: int | None = None) -> asyncio.Future[Any]:
        """Hand a message to the producer's batch; waits only while the buffer is full.

        Returns:
            A future that is done when the broker has the message, or failed for good.
        """
        future: asyncio.Future[Any] = await self._producer.send(
            self._namespace + topic,
            value=message.value,
            key=message.key,
            headers=list(message.headers),
            partition=partition,
        )
        return future

    async def deliver(self, topic: str, *messages: Message) -> None:
        """Send messages and wait until the broker has them all.

        Raises:
            KafkaError: one was not taken after the client's own retries.
        """
        await self.all_acked([await self.send(topic, message) for message in messages])

    @staticmethod
    async def all_acked(futures: Iterable[asyncio.Future[Any]]) -> None:
        """Wait for the broker's word on each; the first failure is raised after all have ended."""
        results = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(await self._producer.partitions_for(self._namespace + topic))


@asynccontextmanager
async def bus_producer(
    settings: KafkaSettings, *, client_id: str, max_request_bytes: int = _MAX_REQUEST_BYTES
) -> AsyncIterator[BusProducer]:
    """A started producer; on leaving, what is buffered is sent first.

    Args:
        settings: how to reach the bus.
        client_id: shown in the broker's logs.
        max_request_bytes: no message longer than this is even sent.

    Raises:
        ServerUnavailableError: the bus does not answer.
    """
    producer = AIOKafkaProducer(
        client_id=client_id,
        acks="all",
        enable_idempotence=settings.enable_idempotence,
        linger_ms=settings.linger_ms,
        max_request_size=max_request_bytes,
        max_batch_size=min(_MAX_BATCH_BYTES, max_request_bytes),
        **connection_options(settings),
    )
    try:
        await start_client(producer, settings)
        yield BusProducer(producer, settings.namespace)
    finally:
        await producer.stop()


def new_consumer(
    settings: KafkaSettings,
    *topics: str,
    group: str | None,
    client_id: str,
    from_start: bool = True,
    prefetch_bytes: int | None = None,
) -> AIOKafkaConsumer:
    """A consumer, not started. With a group its commits are manual; without one it is assigned by hand or by topics.

    Args:
        settings: how to reach the bus.
        topics: names without namespace.
        group: consumer group without namespace; None for a reader that commits nothing.
        client_id: shown in the broker's logs.
        from_start: where a group without commits, or a reader, begins.
        prefetch_bytes: bound of one fetch of one partition; 1 MiB when None. A larger record comes all the same.
    """
    consumer = AIOKafkaConsumer(
        *(settings.namespace + topic for topic in topics),
        client_id=client_id,
        group_id=settings.namespace + group if group else None,
        enable_auto_commit=False,
        auto_offset_reset="earliest" if from_start else "latest",
        max_partition_fetch_bytes=prefetch_bytes or _FETCH_BYTES,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        **connection_options(settings),
    )
    fetch_patiently(consumer)
    return consumer


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop it, and tell its group that the member is gone, so that the others need not wait out its session.

    aiokafka says goodbye only from generation 1 on, where Apache Kafka begins to count. The embedded broker begins
    at 0, and the next member of such a group would wait 5 s more. The request itself carries no generation.
    """
    coordinator = consumer._coordinator
    if getattr(coordinator, "generation", None) == 0:
        coordinator.generation = 1
    await consumer.stop()


def plain_topic(settings: KafkaSettings, record: ConsumerRecord) -> str:
    """The topic of a record without the namespace."""
    return str(record.topic).removeprefix(settings.namespace)
