"""What `webhooks.py` measures with: servers, a notifier and receivers as processes, and their logs."""

import asyncio
import inspect
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from aiokafka import TopicPartition
from pydantic import SecretStr
from webhook_causes import Arrival

from infra.embedded.endpoints import Endpoints, as_environment, kafka_settings
from infra.kafka.clients import new_consumer, start_client
from infra.kafka.ends import end_offsets
from infra.settings import CommonSettings, KafkaSettings, load
from notifier.app import GROUP, RETRY_GROUP
from notifier.bus_log import Positions, read_log
from schemas import topics
from schemas.deliveries import DeliveryAttempted, DeliveryState

SECRET = "whsec_dm94YnVzLWJlbmNobWFyay1zaWduaW5nLXNlY3JldC0wMQ=="  # of a receiver that lives a minute
_RECEIVER = Path(__file__).parent / "webhook_receiver.py"
_PATIENCE_S = 200.0


@dataclass(frozen=True)
class Place:
    """Where a part of a run happens: its own namespace, its own folder."""

    kafka: KafkaSettings
    folder: Path


@contextmanager
def servers(folder: Path) -> Iterator[KafkaSettings]:
    """The bus: the environment's, or embedded servers of our own."""
    if "VOXBUS_KAFKA__BOOTSTRAP_SERVERS" in os.environ:
        yield load(CommonSettings).kafka
        return
    command = [sys.executable, "-c", "from infra.cli import main; main()", "up", "--servers-only", "--port", "0"]
    with (folder / "servers.log").open("w") as log:
        process = Popen([*command, "--data-dir", str(folder / "data")], stdout=PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield kafka_settings(as_environment(Endpoints.model_validate_json(line)))
                return
        raise SystemExit(f"embedded servers did not start; see {folder / 'servers.log'}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@asynccontextmanager
async def notifier(place: Place, **settings: str) -> AsyncIterator[Process]:
    """A notifier process while the block runs; then it is killed, without a word."""
    environment = {
        **os.environ,
        **dict(_variables(place.kafka)),
        "VOXBUS_NOTIFIER__SIGNING_SECRET": SECRET,
        "VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS": '["127.0.0.0/8"]',
        "VOXBUS_LOG__LEVEL": "WARNING",
        **{f"VOXBUS_NOTIFIER__{name.upper()}": value for name, value in settings.items()},
    }
    with (place.folder / "notifier.log").open("ab") as log:
        command = [sys.executable, "-m", "notifier"]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _variables(kafka: KafkaSettings) -> Iterator[tuple[str, str]]:
    for name, value in kafka:
        if value is not None:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            yield f"VOXBUS_KAFKA__{name.upper()}", plain


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Receiver:
    """A receiver that can be killed and started again at its port, and the log that outlives it."""

    place: Place
    options: dict[str, object]
    port: int = field(default_factory=free_port)
    arrivals: list[Arrival] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    """How often each webhook-id was answered with 2xx."""
    _process: Popen[bytes] | None = None
    _read: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def _log(self) -> Path:
        return self.place.folder / str(self.port)

    def start(self, seed: int = 1) -> None:
        given = [f"--{name.replace('_', '-')}={value}" for name, value in self.options.items()]
        command = [
            sys.executable,
            str(_RECEIVER),
            f"--port={self.port}",
            f"--log={self._log}",
            f"--seed={seed}",
            *given,
        ]
        self._process = Popen(command, env={**os.environ, "VOXBUS_NOTIFIER__SIGNING_SECRET": SECRET})

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def bytes(self) -> int:
        """How much stands in the log: counting by it costs nothing, whatever has arrived."""
        return self._log.stat().st_size if self._log.exists() else 0

    def refresh(self) -> None:
        """Read what was written down since the last time."""
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for line in new.decode().splitlines():
            at, name, status, request_id = line.split(" ")
            arrival = Arrival(float(at), name, int(status), request_id)
            self.arrivals.append(arrival)
            if arrival.accepted:
                self.accepted[name] += 1

    def has_accepted(self, count: int) -> bool:
        self.refresh()
        return len(self.accepted) >= count


@contextmanager
def receiving(place: Place, **options: object) -> Iterator[Receiver]:
    """A receiver process while the block runs."""
    receiver = Receiver(place, options)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.kill()


@dataclass
class DeliveryLog:
    """What stands on `tts.deliveries`, read on from where the last reading ended."""

    kafka: KafkaSettings
    events: list[DeliveryAttempted] = field(default_factory=list)
    _positions: Positions = field(default_factory=dict)

    async def refresh(self) -> None:
        async for record in read_log(self.kafka, topics.DELIVERIES, positions=self._positions):
            self.events.append(DeliveryAttempted.model_validate_json(record.value))

    def unanswered(self, since: float) -> list[DeliveryAttempted]:
        """Attempts from a moment on (seconds since 1970) that got no answer."""
        return [e for e in self.events if e.http_status is None and e.error and e.at.timestamp() >= since]

    def noted(self) -> dict[str, float]:
        """When each request was first noted as delivered, in seconds since 1970."""
        delivered = [e for e in self.events if e.state is DeliveryState.DELIVERED]
        return {e.request_id: e.at.timestamp() for e in sorted(delivered, key=lambda e: e.at, reverse=True)}


async def drained(kafka: KafkaSettings) -> bool:
    """Whether the notifiers have finished every completion, and nothing waits on a retry tier."""
    for group, names in ((GROUP, (topics.COMPLETED,)), (RETRY_GROUP, topics.DELIVERY_RETRIES)):
        counts = {kafka.namespace + name: topics.TOPICS[name].partitions or kafka.partitions for name in names}
        partitions = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        ends = await end_offsets(kafka, partitions)
        consumer = new_consumer(kafka, group=group, client_id="benchmark")
        await start_client(consumer, kafka)
        try:
            for partition, end in ends.items():
                if end and (await consumer.committed(partition) or 0) < end:
                    return False
        finally:
            await consumer.stop()
    return True


async def until(condition: Callable[[], Any | Awaitable[Any]], what: str, *, every_s: float = 0.1) -> None:
    """Wait for a condition.

    Raises:
        SystemExit: it does not come.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {_PATIENCE_S:.0f} s: {what}")
        await asyncio.sleep(every_s)


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far, by all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
