"""Fixtures for tests against real servers.

One set of servers for the whole run, from the backend that `VOXBUS_TEST_BACKEND` names (`embedded`, `containers`,
`external`); fresh names for every test, so that no test sees another's messages.
"""

import importlib
import importlib.util
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import structlog
from aiobotocore.session import get_session

from infra.kafka.topics import ensure_topics, require_topics
from infra.settings import KafkaSettings, RedisSettings, S3Settings
from tests.backends.servers import Servers

_BACKENDS = ("embedded", "containers", "external")
_PARTITIONS = 4  # enough for two workers to share; creating topics costs time per partition


# Time per example says more about what else the machine does than about the code.
hypothesis.settings.register_profile(
    "voxbus", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("voxbus")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in the background deaf to Ctrl-C, and so would be every process that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if _backend() not in _BACKENDS:
        raise pytest.UsageError(f"VOXBUS_TEST_BACKEND is {_backend()!r}; it must be one of {', '.join(_BACKENDS)}")
    # Log lines go where pytest collects them, and not to the standard output that some tests read.
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def pytest_report_header() -> str:
    return f"servers: {_backend()} (VOXBUS_TEST_BACKEND)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {"chattts": _chattts_missing, "containers": _docker_missing}
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")
        for marker, missing in reasons.items():
            if item.get_closest_marker(marker) and (reason := missing()):
                item.add_marker(pytest.mark.skip(reason=reason))


def _backend() -> str:
    return os.environ.get("VOXBUS_TEST_BACKEND", "embedded")


@cache
def _chattts_missing() -> str:
    absent = [name for name in ("torch", "ChatTTS") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed: run `make setup`" if absent else ""


@cache
def _docker_missing() -> str:
    from tests.backends import containers  # the docker client is slow to import and seldom needed

    return containers.docker_missing()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Kafka, Redis and S3, shared by all tests of the run."""
    backend = importlib.import_module(f"tests.backends.{_backend()}")
    with backend.servers(Path(tmp_path_factory.mktemp("servers"))) as running:
        yield running


@pytest.fixture
def kafka_settings(servers: Servers) -> KafkaSettings:
    """A namespace of the test's own, empty: `topics_ready` makes the topics."""
    namespace = f"t{uuid.uuid4().hex[:12]}."
    return servers.kafka_settings.model_copy(update={"namespace": namespace, "partitions": _PARTITIONS})


@pytest.fixture
async def topics_ready(kafka_settings: KafkaSettings) -> KafkaSettings:
    """All topics of the table exist in the test's namespace."""
    require_topics(await ensure_topics(kafka_settings))
    return kafka_settings


@pytest.fixture
def redis_settings(servers: Servers) -> RedisSettings:
    """A key prefix of the test's own."""
    return servers.redis_settings.model_copy(update={"namespace": f"t{uuid.uuid4().hex[:12]}:"})


@pytest.fixture
async def s3_settings(servers: Servers) -> AsyncIterator[S3Settings]:
    """A bucket of the test's own, removed with all that is in it."""
    settings = servers.s3_settings.model_copy(update={"bucket": f"t-{uuid.uuid4().hex[:12]}"})
    secret = settings.secret_access_key
    async with get_session().create_client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
    ) as client:
        await client.create_bucket(Bucket=settings.bucket)
        yield settings
        async for page in client.get_paginator("list_objects_v2").paginate(Bucket=settings.bucket):
            for entry in page.get("Contents", ()):
                await client.delete_object(Bucket=settings.bucket, Key=entry["Key"])
        await client.delete_bucket(Bucket=settings.bucket)
