"""Ends of logs, which the embedded broker's ListOffsets does not tell."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.embedded.stack import embedded_servers
from infra.errors import ServerUnavailableError
from infra.kafka.ends import end_offsets
from infra.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("storage", ["s3", "memory"])
async def test_the_end_is_behind_the_last_record(tmp_path, storage):
    async with embedded_servers(tmp_path, storage=storage) as endpoints:
        settings = KafkaSettings(bootstrap_servers=endpoints.kafka)
        admin = AIOKafkaAdminClient(bootstrap_servers=endpoints.kafka)
        await admin.start()
        await admin.create_topics([NewTopic("log", 3, 1)])
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=endpoints.kafka, enable_idempotence=False, linger_ms=20)
        await producer.start()
        for _ in range(7):
            await producer.send_and_wait("log", b"one by one", partition=0)
        await asyncio.gather(*[await producer.send("log", b"in batches", partition=1) for _ in range(1000)])
        await producer.stop()
        partitions = [TopicPartition("log", number) for number in range(3)]
        assert [(await end_offsets(settings, partitions))[each] for each in partitions] == [7, 1000, 0]
        assert await end_offsets(settings, []) == {}


async def test_no_bus_is_said_so():
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", start_timeout_s=0.3)
    with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1:1"):
        await end_offsets(settings, [TopicPartition("log", 0)])
