"""What the notifier holds: deliveries a second, none lost under kills, and a hanging host that costs others nothing.

    python benchmarks/webhooks.py --quick
    python benchmarks/webhooks.py --json figures.json

Starts its own embedded servers, or uses those of VOXBUS_KAFKA__… when VOXBUS_KAFKA__BOOTSTRAP_SERVERS is set.
The notifier and the receiver run as processes of their own.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
import uuid
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.embedded.endpoints import Endpoints, as_environment, kafka_settings
from infra.kafka.clients import bus_producer
from infra.kafka.topics import ensure_topics
from infra.settings import CommonSettings, KafkaSettings, load
from notifier.bus_log import read_log
from notifier.signing import webhook_id
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, Message, encode
from schemas.codes import ErrorCode
from schemas.completions import CompletionData, ErrorInfo, RequestCompleted
from schemas.deliveries import DeliveryAttempted, DeliveryState

SECRET = "whsec_dm94YnVzLWJlbmNobWFyay1zaWduaW5nLXNlY3JldC0wMQ=="  # of a receiver that lives a minute
PARTS = ("throughput", "unreliable", "fairness")
RESULTS = Path(__file__).parent / "results"
_RECEIVER = Path(__file__).parent / "webhook_receiver.py"
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Arrival:
    """One request as the receiver wrote it down."""

    at: float
    webhook_id: str
    status: int
    request_id: str


@dataclass(frozen=True)
class Place:
    """Where a run happens: its own namespace, its own folder."""

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


def completion(request_id: str, callback: str) -> Message:
    """A completion as the dedup app publishes it."""
    error = ErrorInfo(code=ErrorCode.BAD_AUDIO, message="a figure, not a failure", attempts=1)
    data = CompletionData(request_id=request_id, status="failed", error=error)
    event = RequestCompleted(type="speech.failed", timestamp=utc_now(), data=data)
    return encode(event, source="voxbus/benchmark", context=Context(extensions={"callbackurl": callback}))


async def publish(kafka: KafkaSettings, request_ids: list[str], callback: str, rate: float = 0.0) -> dict[str, float]:
    """Put completions on the bus, all at once or at a rate; returns when each was sent."""
    sent: dict[str, float] = {}
    async with bus_producer(kafka, client_id="benchmark") as producer:
        futures = []
        for request_id in request_ids:
            sent[request_id] = time.time()
            futures.append(await producer.send(topics.COMPLETED, completion(request_id, callback)))
            if rate:
                await asyncio.sleep(1 / rate)
        await producer.all_acked(futures)
    return sent


@asynccontextmanager
async def notifier(place: Place, **settings: str) -> AsyncIterator[Process]:
    """A notifier process while the block runs; then it is killed, without a word."""
    kafka = place.kafka
    environment = {
        **os.environ,
        "VOXBUS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "VOXBUS_KAFKA__NAMESPACE": kafka.namespace,
        "VOXBUS_KAFKA__ENABLE_IDEMPOTENCE": str(kafka.enable_idempotence).lower(),
        "VOXBUS_KAFKA__FETCH_MAX_WAIT_MS": str(kafka.fetch_max_wait_ms),
        "VOXBUS_KAFKA__SESSION_TIMEOUT_MS": str(kafka.session_timeout_ms),
        "VOXBUS_KAFKA__HEARTBEAT_INTERVAL_MS": str(kafka.heartbeat_interval_ms),
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
        process.kill()
        await process.wait()


def receiver(place: Place, port: int, **options: object) -> Popen[bytes]:
    """A receiver process; what it gets stands in `arrivals`."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, str(_RECEIVER), f"--port={port}", f"--log={place.folder / str(port)}", *given]
    return Popen(command, env={**os.environ, "VOXBUS_NOTIFIER__SIGNING_SECRET": SECRET})


def arrivals(place: Place, port: int) -> list[Arrival]:
    """Everything the receiver at a port has written down."""
    path = place.folder / str(port)
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [line.split(" ") for line in lines]
    return [Arrival(float(at), name, int(status), request_id) for at, name, status, request_id in rows]


def accepted(place: Place, port: int) -> Counter[str]:
    """How often each webhook-id was answered with 2xx."""
    return Counter(arrival.webhook_id for arrival in arrivals(place, port) if 200 <= arrival.status < 300)


async def until(condition: Callable[[], bool], what: str, timeout_s: float = _PATIENCE_S) -> None:
    """Wait for a condition.

    Raises:
        SystemExit: it does not come.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {timeout_s:.0f} s: {what}")
        await asyncio.sleep(0.1)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def throughput(place: Place, count: int) -> dict[str, Any]:
    """How many deliveries a second a receiver gets that answers at once."""
    port = free_port()
    names = [f"fast-{n}" for n in range(count)]
    await publish(place.kafka, names, f"http://127.0.0.1:{port}/")
    process = receiver(place, port, verify_every=50)
    try:
        async with notifier(place) as running:
            await until(lambda: len(accepted(place, port)) > 0, "the first delivery")
            before = cpu_seconds(running.pid), len(accepted(place, port))
            await until(lambda: len(accepted(place, port)) == count, "every completion delivered")
            spent = cpu_seconds(running.pid) - before[0]
    finally:
        process.kill()
        process.wait()
    moments = sorted(arrival.at for arrival in arrivals(place, port))
    busy = moments[-1] - moments[0]
    return {
        "deliveries": count,
        "seconds": round(busy, 2),
        "deliveries_per_s": round(count / busy),
        # On a machine that has other things to do this is the figure that holds.
        "notifier_cpu_ms_each": round(spent / (count - before[1]) * 1000, 3),
    }


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far, by all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def unreliable(place: Place, count: int, kills: int) -> dict[str, Any]:
    """A receiver that fails and hangs and is restarted, a notifier that is killed: what arrives, and how often."""
    port = free_port()
    names = [f"hard-{n}" for n in range(count)]
    bad = {"fail": 0.3, "hang": 0.05}
    settings = {"retry_delays_s": json.dumps([0, *[0.5] * 2, *[1] * 4, *[2] * 10, *[4] * 10]), "timeout_s": "2"}
    await publish(place.kafka, names, f"http://127.0.0.1:{port}/")
    process = receiver(place, port, seed=1, **bad)
    began = time.monotonic()
    try:
        for kill in range(kills):
            async with notifier(place, **settings):
                goal = count * (kill + 1) // (kills + 2)
                await until(lambda goal=goal: len(accepted(place, port)) >= goal, f"{goal} delivered")  # type: ignore[misc]
        async with notifier(place, **settings):
            process.kill()
            process.wait()
            await asyncio.sleep(2)
            process = receiver(place, port, seed=2, **bad)
            await until(lambda: len(accepted(place, port)) == count, "every completion delivered")
            await asyncio.sleep(1)
    finally:
        process.kill()
        process.wait()
    good = accepted(place, port)
    noted = await _noted(place)
    assert set(good) == {webhook_id(name) for name in names}
    return {
        "completions": count,
        "notifier_kills": kills,
        "delivered": len(good),
        "requests": len(arrivals(place, port)),
        "webhook_ids": len({arrival.webhook_id for arrival in arrivals(place, port)}),
        "again_after_2xx": good.total() - len(good),
        "again_after_noted": sum(times - 1 for times in noted.values()),
        "seconds": round(time.monotonic() - began, 1),
    }


async def _noted(place: Place) -> Counter[str]:
    """How often each request stands as delivered on the delivery log."""
    noted: Counter[str] = Counter()
    async for record in read_log(place.kafka, topics.DELIVERIES):
        event = DeliveryAttempted.model_validate_json(record.value)
        if event.state is DeliveryState.DELIVERED and event.request_id.startswith("hard-"):
            noted[event.request_id] += 1
    return noted


async def fairness(place: Place, waiting: int, probes: int) -> dict[str, Any]:
    """The latency of a healthy host alone, and while deliveries wait for one that hangs."""
    healthy, hanging = free_port(), free_port()
    processes = [receiver(place, healthy), receiver(place, hanging, hang=1)]
    figures: dict[str, Any] = {"waiting_for_the_hanging_host": waiting}
    try:
        async with notifier(place):
            await publish(place.kafka, ["warm"], f"http://127.0.0.1:{healthy}/")
            await until(lambda: len(accepted(place, healthy)) == 1, "the first delivery")
            for label in ("alone", "beside"):
                if label == "beside":
                    names = [f"stuck-{n}" for n in range(waiting)]
                    await publish(place.kafka, names, f"http://127.0.0.1:{hanging}/")
                    # What comes right behind the burst waits until the burst has been read.
                    behind = await publish(place.kafka, ["behind"], f"http://127.0.0.1:{healthy}/")
                    await until(partial(_all_arrived, place, healthy, behind), "the delivery behind the burst")
                    arrival = next(a for a in arrivals(place, healthy) if a.request_id == "behind")
                    figures["behind_the_burst_ms"] = round((arrival.at - behind["behind"]) * 1000)
                # A probe's latency counts from its publishing.
                sent = await publish(
                    place.kafka, [f"{label}-{n}" for n in range(probes)], f"http://127.0.0.1:{healthy}/", rate=20
                )
                await until(partial(_all_arrived, place, healthy, sent), "the probes")
                took = sorted(a.at - sent[a.request_id] for a in arrivals(place, healthy) if a.request_id in sent)
                figures[f"{label}_p50_ms"] = round(statistics.median(took) * 1000)
                figures[f"{label}_p95_ms"] = round(took[int(0.95 * len(took))] * 1000)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return figures


def _all_arrived(place: Place, port: int, sent: dict[str, float]) -> bool:
    return sent.keys() <= {arrival.request_id for arrival in arrivals(place, port)}


async def measure(kafka: KafkaSettings, folder: Path, quick: bool, parts: Collection[str]) -> dict[str, Any]:
    """Run the parts, each in a namespace of its own."""

    async def place(name: str) -> Place:
        settings = kafka.model_copy(update={"namespace": f"bench{uuid.uuid4().hex[:8]}."})
        await ensure_topics(settings)
        (folder / name).mkdir()
        return Place(settings, folder / name)

    figures: dict[str, Any] = {}
    if "throughput" in parts:
        figures["throughput"] = await throughput(await place("throughput"), 5_000 if quick else 20_000)
    if "unreliable" in parts:
        count, kills = (500, 1) if quick else (2_000, 5)
        figures["unreliable"] = await unreliable(await place("unreliable"), count, kills)
    if "fairness" in parts:
        waiting, probes = (2_000, 100) if quick else (10_000, 400)
        figures["fairness"] = await fairness(await place("fairness"), waiting, probes)
    return figures


def _machine() -> dict[str, Any]:
    load1 = os.getloadavg()[0]
    return {"cpus": os.cpu_count(), "load_before": round(load1, 1), "python": platform.python_version()}


def _print(figures: dict[str, Any], file: Any = None) -> None:
    table = Table("part", "figure", "value", box=None, pad_edge=False)
    for part, values in figures.items():
        for name, value in values.items():
            table.add_row(part, name, str(value))
    Console(file=file, width=100).print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    machine = _machine()
    with tempfile.TemporaryDirectory(prefix="voxbus-webhooks-") as folder, servers(Path(folder)) as kafka:
        figures = asyncio.run(measure(kafka, Path(folder), arguments.quick, arguments.part or PARTS))
    figures["machine"] = machine | {"load_after": round(os.getloadavg()[0], 1)}
    _print(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if not (arguments.quick or arguments.part):
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "webhooks.json").write_text(json.dumps(figures, indent=2) + "\n")
        with (RESULTS / "webhooks.txt").open("w") as file:
            _print(figures, file)


if __name__ == "__main__":
    main()
