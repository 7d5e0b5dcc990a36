"""The audio topic on a broker without retention: dropped when large and read, never when unread."""

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.embedded import janitor
from infra.embedded.endpoints import as_environment, kafka_settings
from infra.embedded.stack import embedded_servers
from infra.kafka.ends import end_offsets
from infra.kafka.topics import ensure_topics
from schemas.topics import AUDIO

pytestmark = pytest.mark.integration

FIRST = TopicPartition(AUDIO, 0)


@pytest.fixture
async def endpoints(tmp_path):
    async with embedded_servers(tmp_path) as running:
        yield running


@pytest.fixture
async def settings(endpoints):
    made = kafka_settings(as_environment(endpoints) | {"VOXBUS_KAFKA__PARTITIONS": "2"})
    await ensure_topics(made)
    return made


async def produce(settings, *values):
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, enable_idempotence=False)
    await producer.start()
    for value in values:
        await producer.send_and_wait(AUDIO, value, partition=0)
    await producer.stop()


async def read_and_commit(settings, count):
    """As the uploader's group: what it finds without an offset of its own it reads from the start."""
    consumer = AIOKafkaConsumer(
        AUDIO,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=janitor.READER,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=20,
        session_timeout_ms=3000,
        heartbeat_interval_ms=600,
    )
    await consumer.start()
    read = [(await consumer.getone()).value for _ in range(count)]
    await consumer.commit({FIRST: count})
    await consumer.stop()
    return read


async def test_read_audio_is_dropped_and_the_uploader_misses_nothing_afterwards(endpoints, settings):
    await produce(settings, *[b"a" * 10_000] * 5)
    assert (await janitor.audio_size(endpoints, settings)).bytes > 50_000
    assert await janitor.tidy(endpoints, settings, bound_bytes=10**9) is None

    assert "5 records wait for the uploader" in await janitor.tidy(endpoints, settings, bound_bytes=1000)
    assert await end_offsets(settings, [FIRST]) == {FIRST: 5}

    assert len(await read_and_commit(settings, 5)) == 5
    assert "freed" in await janitor.tidy(endpoints, settings, bound_bytes=1000)
    await ensure_topics(settings)
    assert (await janitor.audio_size(endpoints, settings)).bytes < 1000
    assert await end_offsets(settings, [FIRST]) == {FIRST: 0}

    await produce(settings, b"first after", b"second after")
    assert await read_and_commit(settings, 2) == [b"first after", b"second after"]


async def test_without_a_topic_there_is_nothing_to_do(endpoints):
    settings = kafka_settings(as_environment(endpoints))
    assert await janitor.tidy(endpoints, settings, bound_bytes=0) is None
