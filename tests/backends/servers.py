"""What a test needs to know of Kafka, Redis and S3, whichever backend runs them."""

from dataclasses import dataclass

from infra.settings import KafkaSettings, RedisSettings, S3Settings


@dataclass(frozen=True, slots=True)
class Servers:
    """Settings that reach the three servers; a test's fixtures add its own namespace and bucket."""

    kafka_settings: KafkaSettings
    redis_settings: RedisSettings
    s3_settings: S3Settings

    @property
    def kafka(self) -> str:
        """host:port"""
        return self.kafka_settings.bootstrap_servers

    @property
    def redis(self) -> str:
        """redis://…"""
        return self.redis_settings.url.get_secret_value()

    @property
    def s3(self) -> str:
        """http://…"""
        return self.s3_settings.endpoint_url or ""


class BackendError(Exception):
    """The servers did not come; the message says which, and where to look."""
