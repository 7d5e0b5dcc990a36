"""How much the HTTP gateway carries, and how soon it answers.

    python benchmarks/gateway.py --quick
    python benchmarks/gateway.py --json figures.json

Hits are measured at a gateway beside a whole embedded stack that idles; misses and limits at one over the servers
alone, so that accepting is measured and not speaking; the streaming roads at the whole stack with the espeak engine.
Load comes from a process of its own on the same machine, so it takes its share of the cores. Percentiles are over all
answers, whatever they say. Exits 1 when a target is missed, but for `--quick`.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from infra.embedded.endpoints import Endpoints, as_environment
from schemas.base import utc_now
from schemas.codes import AudioFormat
from schemas.completions import EngineInfo
from schemas.renditions import CachedRendition, rendition_cache_key

RESULTS = Path(__file__).parent / "results"
_VOXBUS = [sys.executable, "-c", "from infra.cli import main; main()"]
_LOAD = [sys.executable, str(Path(__file__).with_name("gateway_load.py"))]
_TEXTS = 8
_LIMIT = 300
_OPEN = {"RATE_PER_S": "100000", "RATE_BURST": "100000", "KEY_RATE_PER_S": "100000", "MAX_QUEUED_AUDIO_S": "1e9"}

TARGETS = {
    "hits_per_s": (1_500, "at least"),
    "hit_p99_ms": (10, "at most"),
    "hits_not_answered_as_such": (0, "at most"),
    "misses_per_s": (800, "at least"),
    "hit_first_byte_ms": (20, "at most"),
    "stream_first_packet_ms": (250, "at most"),
    "p99_at_twice_the_limit": (2, "at most"),
    "refused_otherwise_than_429": (0, "at most"),
}


@contextmanager
def stack(folder: Path, *options: str, **gateway: str) -> Iterator[Endpoints]:
    """`voxbus up` until the block ends."""
    variables = {f"VOXBUS_GATEWAY__{name}": value for name, value in gateway.items()}
    command = [*_VOXBUS, "up", "--data-dir", str(folder), *options]
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        yield Endpoints.model_validate_json(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


@contextmanager
def lone_gateway(endpoints: Endpoints, namespace: str, **settings: str) -> Iterator[str]:
    """A gateway over the servers, as a container runs it; yields host:port."""
    variables = {f"VOXBUS_GATEWAY__{name}": value for name, value in settings.items()}
    environment = {**os.environ, **as_environment(endpoints), **variables, "VOXBUS_REDIS__NAMESPACE": namespace}
    environment |= {"VOXBUS_GATEWAY__PORT": "0", "VOXBUS_GATEWAY__DEDUP_WEB": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "producers.gateway"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            with suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == "listening" and "port" in entry:
                    break
        host = f"127.0.0.1:{entry['port']}"
        # Its log is read on, so that the pipe never fills.
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        _until_ready(host)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        reader.wait(5)
        process.stderr.close()


def _until_ready(host: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"http://{host}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"the gateway at {host} does not become ready")


def load(host: str, **options: Any) -> dict[str, Any]:
    """Send load; the report of `gateway_load.py`."""
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([*_LOAD, "--host", host, *arguments], capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)["answers"]
    return report


async def warm(host: str, endpoints: Endpoints, namespace: str, prefix: str) -> None:
    """Cache entries for the texts of the load, as the uploader would have left them."""
    async with httpx.AsyncClient(base_url=f"http://{host}") as http, Redis.from_url(endpoints.redis) as redis:
        for number in range(_TEXTS):
            answer = await http.post("/v1/speech", json={"text": f"{prefix} {number}", "format": "mp3"})
            fingerprint = answer.raise_for_status().json()["fingerprint"]
            entry = CachedRendition(
                fingerprint=fingerprint,
                key=f"audio/{fingerprint}.mp3",
                url=f"{endpoints.s3}/voxbus/audio/{fingerprint}.mp3?X-Amz-Signature={'0' * 64}",
                format=AudioFormat.MP3,
                bytes=20_000,
                sha256="0" * 64,
                duration_s=2.5,
                sample_rate=24_000,
                engine=EngineInfo(name="espeak", revision="1", seed=1),
                stored_at=utc_now(),
            )
            name = namespace + rendition_cache_key(fingerprint, AudioFormat.MP3)
            await redis.set(name, entry.model_dump_json())


async def hits(endpoints: Endpoints, seconds: float) -> dict[str, Any]:
    """The queue road for what is stored, while the pipeline idles."""
    figures: dict[str, Any] = {}
    namespace = f"bench{uuid.uuid4().hex[:6]}:"
    with lone_gateway(endpoints, namespace, **_OPEN) as host:
        await warm(host, endpoints, namespace, "hello")
        load(host, texts=_TEXTS, seconds=1)
        await asyncio.sleep(2)  # what warming asked for is spoken by then
        closed = load(host, texts=_TEXTS, seconds=seconds)
        figures["hits_per_s"], figures["hits_closed_loop"] = round(closed["200"]["per_s"]), closed
        steady = load(host, texts=_TEXTS, seconds=seconds, rate=300)
        figures["hit_p99_ms"], figures["hits_at_300_per_s"] = steady["all"]["p99"], steady
    figures["hits_not_answered_as_such"] = sum(each["all"]["count"] - each["200"]["count"] for each in (closed, steady))
    return figures


async def doors(endpoints: Endpoints, seconds: float) -> dict[str, Any]:
    """The queue road for what is new, and at its limit."""
    figures: dict[str, Any] = {}
    namespace = f"bench{uuid.uuid4().hex[:6]}:"
    with lone_gateway(endpoints, namespace, **_OPEN) as host:
        load(host, seconds=1, prefix=f"warm {uuid.uuid4().hex}")
        misses = load(host, seconds=seconds, prefix=f"miss {uuid.uuid4().hex}")["202"]
        figures["misses_per_s"], figures["misses_closed_loop"] = round(misses["per_s"]), misses
    limits = {"RATE_PER_S": str(_LIMIT), "RATE_BURST": str(_LIMIT), "KEY_RATE_PER_S": "100000"}
    namespace = f"bench{uuid.uuid4().hex[:6]}:"
    with lone_gateway(endpoints, namespace, **limits) as host:
        await warm(host, endpoints, namespace, "hello")
        await asyncio.sleep(2)
        # Hits and misses by turns.
        mixed = {"texts": _TEXTS, "seconds": seconds, "mixed": f"miss {uuid.uuid4().hex}"}
        below = load(host, rate=_LIMIT * 0.9, **mixed)
        await asyncio.sleep(2)
        above = load(host, rate=_LIMIT * 2, **mixed | {"mixed": f"miss {uuid.uuid4().hex}"})
    figures["twice_the_limit"] = {"below": below, "above": above}
    known = sum(above.get(status, {"count": 0})["count"] for status in ("200", "202", "429"))
    figures["refused_otherwise_than_429"] = above["all"]["count"] - known
    figures["p99_at_twice_the_limit"] = round(above["accepted"]["p99"] / below["accepted"]["p99"], 2)
    return figures


async def streams(url: str, rounds: int) -> dict[str, Any]:
    """The streaming road, over the whole pipeline."""
    first_bytes, first_packets, from_connecting = [], [], []
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        body = {"input": "A greeting that was spoken before.", "voice": "female1", "response_format": "mp3"}
        wait = {"Prefer": "wait=30"}
        text = {"text": body["input"], "voice": "female1", "format": "mp3"}
        (await http.post("/v1/speech", json=text, headers=wait)).raise_for_status()
        for _ in range(rounds):
            began = time.perf_counter()
            async with http.stream("POST", "/v1/audio/speech", json=body) as answer:
                async for _block in answer.aiter_raw():
                    first_bytes.append((time.perf_counter() - began) * 1_000)
                    break
        for number in range(rounds):
            connecting = time.perf_counter()
            async with connect(url.replace("http", "ws") + "/v1/stream") as socket:
                began = time.perf_counter()
                await socket.send(
                    json.dumps({"text": f"A new greeting, number {number} of {uuid.uuid4().int % 10**6}."})
                )
                async for message in socket:
                    if isinstance(message, bytes):
                        first_packets.append((time.perf_counter() - began) * 1_000)
                        from_connecting.append((time.perf_counter() - connecting) * 1_000)
                        break
            await asyncio.sleep(0.3)  # the rest of that take is made and stored meanwhile
    return {
        "hit_first_byte_ms": round(statistics.median(first_bytes), 1),
        "hit_first_byte_max_ms": round(max(first_bytes), 1),
        "stream_first_packet_ms": round(statistics.median(first_packets), 1),
        "stream_first_packet_max_ms": round(max(first_packets), 1),
        "stream_first_packet_from_connecting_ms": round(statistics.median(from_connecting), 1),
    }


async def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """All figures."""
    figures: dict[str, Any] = {"machine": _machine(), "load_average_at_start": os.getloadavg()}
    seconds = 4 if quick else 15
    with stack(folder / "whole", "--engine", "espeak", "--slots", "1") as endpoints:
        assert endpoints.gateway is not None
        figures |= await hits(endpoints, seconds)
        figures |= await streams(endpoints.gateway, 10 if quick else 40)
    with stack(folder / "servers", "--servers-only") as endpoints:
        figures |= await doors(endpoints, seconds)
    return figures


def met(figures: dict[str, Any]) -> dict[str, bool]:
    """Which targets are met."""
    return {
        name: figures[name] >= target if kind == "at least" else figures[name] <= target
        for name, (target, kind) in TARGETS.items()
    }


def _machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "python": platform.python_version(), "processor": platform.machine()}


def table(figures: dict[str, Any]) -> str:
    """What was wanted and what was measured, as Markdown."""
    lines = ["| figure | measured | target | |", "|---|---|---|---|"]
    good = met(figures)
    for name, (target, kind) in TARGETS.items():
        lines.append(f"| {name} | {figures[name]:,} | {kind} {target:,} | {'yes' if good[name] else 'no'} |")
    loads = ", ".join(f"{value:.1f}" for value in figures["load_average_at_start"])
    lines.append("")
    lines.append(f"{figures['machine']['cores']} cores; load average at the start {loads}. One run.")
    lines.append(f"Streams are medians; at most {figures['hit_first_byte_max_ms']} ms to the first byte,")
    lines.append(
        f"{figures['stream_first_packet_max_ms']} ms to the first packet; with the connecting, the first packet comes"
    )
    lines.append(f"after {figures['stream_first_packet_from_connecting_ms']} ms in the median.")
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="voxbus-bench-") as folder:
        figures = asyncio.run(measure(Path(folder), quick=arguments.quick))
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        name = f"gateway-{utc_now().date().isoformat()}"
        (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
        (RESULTS / f"{name}.md").write_text(table(figures) + "\n")
        if not all(met(figures).values()):
            sys.exit(1)


if __name__ == "__main__":
    main()
