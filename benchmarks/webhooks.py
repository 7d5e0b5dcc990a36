"""What the notifier holds: deliveries a second, none lost under kills, and a hanging host that costs others nothing.

    python benchmarks/webhooks.py --quick
    python benchmarks/webhooks.py --json figures.json

Starts its own embedded servers, or uses those of VOXBUS_KAFKA__… when VOXBUS_KAFKA__BOOTSTRAP_SERVERS is set.
The notifier and the receivers run as processes of their own, on the same cores. Exit status 1 when a webhook was lost,
repeated without a crash that explains it, or dead-lettered.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from webhook_completions import completion, publish
from webhook_reckoning import faults, reckoned
from webhook_world import (
    DeliveryLog,
    Place,
    Receiver,
    cpu_seconds,
    drained,
    notifier,
    receiving,
    servers,
    until,
)

from infra.kafka.topics import ensure_topics
from infra.settings import KafkaSettings
from schemas.base import utc_now

PARTS = ("throughput", "stall", "unreliable", "fairness")
RESULTS = Path(__file__).parent / "results"
_WANTED_PER_S = 800
_PROBES_PER_S = 20.0
_STALL_S = 2.0
# Attempts that find nobody at the receiver's port before it is started again.
_UNANSWERED = 5


async def throughput(place: Place, count: int) -> dict[str, Any]:
    """How many deliveries a second a receiver gets that answers at once."""
    names = [f"fast-{n:06}" for n in range(count)]
    with receiving(place, verify_every=50) as fast:
        await publish(place.kafka, names, fast.url)
        async with notifier(place) as running:
            await until(lambda: fast.bytes() > 0, "the first delivery")
            fast.refresh()
            # Lines are equally long, so that waiting costs the notifier nothing of its cores.
            line = fast.bytes() // len(fast.arrivals)
            before = cpu_seconds(running.pid), len(fast.arrivals)
            await until(lambda: fast.bytes() >= count * line, "every completion delivered")
            spent = cpu_seconds(running.pid) - before[0]
        await until(lambda: fast.has_accepted(count), "every completion delivered")
    moments = sorted(arrival.at for arrival in fast.arrivals)
    busy = moments[-1] - moments[0]
    return {
        "deliveries": count,
        "body_bytes": len(completion(names[0], fast.url).value or b""),
        "seconds": round(busy, 2),
        "deliveries_per_s": round(count / busy),
        f"at_least_{_WANTED_PER_S}_per_s": "yes" if count / busy >= _WANTED_PER_S else "no",
        # On a machine that has other things to do this is the figure that holds.
        "notifier_cpu_ms_each": round(spent / (count - before[1]) * 1000, 3),
    }


async def stall(place: Place, count: int) -> dict[str, Any]:
    """The same when the receiver begins with a stall: what was put off then must not leave it idle afterwards."""
    names = [f"stalled-{n:06}" for n in range(count)]
    with receiving(place, verify_every=50, stall=_STALL_S) as stalled:
        await publish(place.kafka, names, stalled.url)
        async with notifier(place):
            await until(partial(stalled.has_accepted, count), "every completion delivered", every_s=1.0)
    moments = sorted(arrival.at for arrival in stalled.arrivals)
    busy = moments[-1] - moments[0]
    return {
        "deliveries": count,
        "stall_s": _STALL_S,
        "seconds_after_the_stall": round(busy, 2),
        "deliveries_per_s_after_the_stall": round(count / busy),
    }


async def unreliable(place: Place, count: int, kills: int) -> dict[str, Any]:
    """A receiver that fails, hangs, is killed and started again, meanwhile the notifier is killed, too."""
    names = [f"hard-{n:06}" for n in range(count)]
    settings = {"retry_delays_s": json.dumps([0, *[0.5] * 2, *[1] * 4, *[2] * 10, *[4] * 10]), "timeout_s": "3"}
    log, notifier_kills, receiver_kills = DeliveryLog(place.kafka), [], []
    began = time.monotonic()
    with receiving(place, fail=0.3, hang=0.05) as bad:
        await publish(place.kafka, names, bad.url)
        for kill in range(kills):
            async with notifier(place, **settings) as running:
                await until(partial(bad.has_accepted, count * (kill + 1) // (kills + 2)), "the share before a kill")
                if kill == kills // 2:
                    receiver_kills.append(await _restart(bad, log, count // (2 * kills + 4)))
                notifier_kills.append(time.time())
                running.kill()
        async with notifier(place, **settings):
            await until(partial(_all_noted, log, names), "every delivery noted", every_s=1.0)
            await until(partial(drained, place.kafka), "nothing waiting on the bus", every_s=1.0)
        bad.refresh()
    await log.refresh()
    figures = await reckoned(place, bad, log, names, notifier_kills, receiver_kills)
    return {**figures, "seconds": round(time.monotonic() - began, 1)}


async def _restart(bad: Receiver, log: DeliveryLog, more: int) -> float:
    """Kill a receiver, start it again when the notifier has run into that, and let it take some more."""
    began = time.time()
    bad.kill()
    killed = time.time()

    async def missed() -> bool:
        await log.refresh()
        return len(log.unanswered(began)) >= _UNANSWERED

    await until(missed, "attempts that found the receiver dead", every_s=0.3)
    bad.start(seed=2)
    await until(partial(bad.has_accepted, len(bad.accepted) + more), "deliveries after the receiver's restart")
    return killed


async def _all_noted(log: DeliveryLog, names: list[str]) -> bool:
    await log.refresh()
    return log.noted().keys() >= set(names)


async def fairness(place: Place, waiting: int, alone_s: float, beside_s: float) -> dict[str, Any]:
    """The latency of a healthy host alone, and while deliveries wait for one that hangs."""
    figures: dict[str, Any] = {"waiting_for_the_hanging_host": waiting, "beside_s": beside_s}
    with receiving(place) as healthy, receiving(place, hang=1) as hanging:
        async with notifier(place):
            await publish(place.kafka, ["warm"], healthy.url)
            await until(partial(healthy.has_accepted, 1), "the first delivery")
            figures |= await _latency(place, healthy, "alone", alone_s)
            await publish(place.kafka, [f"stuck-{n}" for n in range(waiting)], hanging.url)
            # What comes right behind the burst waits until the burst has been read.
            behind = await publish(place.kafka, ["behind"], healthy.url)
            await until(partial(_all_arrived, healthy, behind), "the delivery behind the burst")
            arrival = next(a for a in healthy.arrivals if a.request_id == "behind")
            figures["behind_the_burst_ms"] = round((arrival.at - behind["behind"]) * 1000)
            figures |= await _latency(place, healthy, "beside", beside_s)
            hanging.refresh()
    figures["attempts_that_hung"] = len(hanging.arrivals)
    fair = figures["beside_p95_ms"] <= 1.5 * figures["alone_p95_ms"] + 20
    figures["p95_beside_within_1.5_alone_plus_20_ms"] = "yes" if fair else "no"
    return figures


async def _latency(place: Place, healthy: Receiver, label: str, seconds: float) -> dict[str, Any]:
    """Of probes at a steady rate, each from its publishing to its arrival."""
    names = [f"{label}-{n}" for n in range(round(seconds * _PROBES_PER_S))]
    sent = await publish(place.kafka, names, healthy.url, rate=_PROBES_PER_S)
    await until(partial(_all_arrived, healthy, sent), "the probes")
    took = sorted(a.at - sent[a.request_id] for a in healthy.arrivals if a.request_id in sent)
    p95 = took[int(0.95 * len(took))]
    return {f"{label}_p50_ms": round(statistics.median(took) * 1000), f"{label}_p95_ms": round(p95 * 1000)}


def _all_arrived(receiver: Receiver, sent: dict[str, float]) -> bool:
    receiver.refresh()
    return sent.keys() <= {arrival.request_id for arrival in receiver.arrivals}


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
    if "stall" in parts:
        figures["stall"] = await stall(await place("stall"), 2_500 if quick else 10_000)
    if "unreliable" in parts:
        count, kills = (500, 2) if quick else (2_000, 5)
        figures["unreliable"] = await unreliable(await place("unreliable"), count, kills)
    if "fairness" in parts:
        waiting, alone_s, beside_s = (2_000, 5, 10) if quick else (10_000, 20, 60)
        figures["fairness"] = await fairness(await place("fairness"), waiting, alone_s, beside_s)
    return figures


def table(figures: dict[str, Any]) -> str:
    """The figures, as Markdown."""
    lines = ["| part | figure | value |", "|---|---|---|"]
    for part, values in figures.items():
        lines += [f"| {part} | {name} | {value} |" for name, value in values.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    loads = [f"{os.getloadavg()[0]:.1f}"]
    with tempfile.TemporaryDirectory(prefix="voxbus-webhooks-") as folder, servers(Path(folder)) as kafka:
        figures = asyncio.run(measure(kafka, Path(folder), arguments.quick, arguments.part or PARTS))
    loads.append(f"{os.getloadavg()[0]:.1f}")
    machine = {"cpus": os.cpu_count(), "load_before": loads[0], "load_after": loads[1]}
    figures["machine"] = {**machine, "python": platform.python_version()}
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if not (arguments.quick or arguments.part):
        RESULTS.mkdir(exist_ok=True)
        name = f"webhooks-{utc_now().date().isoformat()}"
        (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
        (RESULTS / f"{name}.md").write_text(table(figures) + "\n")
    if wrong := faults(figures["unreliable"]) if "unreliable" in figures else []:
        sys.exit("not as promised: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
