"""What the fixtures promise every other test: servers that answer, and names nobody else uses."""

from redis.asyncio import Redis

from infra.settings import KafkaSettings, RedisSettings, S3Settings
from tests.backends.servers import Servers


async def test_every_server_answers(servers: Servers, redis_settings: RedisSettings) -> None:
    async with Redis.from_url(servers.redis) as client:
        assert await client.ping()
    assert redis_settings.namespace.endswith(":")


def test_names_are_fresh(kafka_settings: KafkaSettings, s3_settings: S3Settings) -> None:
    assert kafka_settings.namespace.startswith("t")
    assert kafka_settings.namespace.endswith(".")
    assert s3_settings.bucket.startswith("t-")
