"""What the figures of `engine.py` come to: ratios, targets, a table."""

import os
import platform
from pathlib import Path
from typing import Any

TARGETS = {
    "times_list_batching": (2.0, "at least"),
    "times_one_at_a_time": (6.0, "at least"),
    "first_chunk_share": (0.25, "at most"),
    "step_growth": (1.1, "at most"),
    "peak_share": (1.0, "at most"),
}
TOKENS_PER_SECOND = 24_000 / 512


def best(rounds: list[dict[str, Any]], key: str) -> float:
    """The least disturbed of several measurements of the same work."""
    values = [float(figures[key]) for figures in rounds]
    return max(values) if key.endswith("per_s") else min(values)


def summary(results: dict[str, list[dict[str, Any]]], lanes: int) -> dict[str, Any]:
    ours, theirs = results["lanes"], results["list_batching"]
    speed = {part: best(results[part], "audio_s_per_s") for part in ("lanes", "list_batching", "one_at_a_time")}
    first = {key: best(results["first_chunk"], key) for key in ("theirs_s", "exact_s", "early_s")}
    cost = {part: best(results[part], "cpu_s_per_audio_s") for part in speed}
    return {
        "cpu_list_batching": cost["list_batching"] / cost["lanes"],
        "cpu_one_at_a_time": cost["one_at_a_time"] / cost["lanes"],
        "times_list_batching": speed["lanes"] / speed["list_batching"],
        "times_one_at_a_time": speed["lanes"] / speed["one_at_a_time"],
        "times_list_batching_by_round": [
            a["audio_s_per_s"] / b["audio_s_per_s"] for a, b in zip(ours, theirs, strict=True)
        ],
        "first_chunk_exact_share": first["exact_s"] / first["theirs_s"],
        "first_chunk_share": first["early_s"] / first["theirs_s"],
        "step_growth": results["flat"][0]["growth"],
        "peak_share": best(ours, "peak_mb") / best(theirs, "peak_mb"),
        "mb_per_lane": (best(ours, "peak_mb") - best(ours, "loaded_mb")) / lanes,
        "exact": results["exact"][0],
    }


def verdicts(outcome: dict[str, Any]) -> dict[str, bool]:
    """Which targets are met."""
    met = {
        name: outcome[name] >= bound if kind == "at least" else outcome[name] <= bound
        for name, (bound, kind) in TARGETS.items()
    }
    exact = outcome["exact"]
    return met | {"exact": exact["same_at_all_lanes"] and all(exact["as_the_package"].values())}


def table(report: dict[str, Any]) -> str:
    scale, outcome, results = report["scale"], report["summary"], report["results"]
    rows = [
        f"# ChatTTS engine, {report['when']}",
        "",
        f"{report['machine']}; {report['threads']} threads; {report['versions']}. "
        f"Random weights ({scale['size']} size), "
        f"{scale['requests']} requests of {scale['median_s']} s in the median, at most {scale['longest_s']} s, "
        f"{scale['batch']} at once; {report['rounds']} rounds, contestants in turn, the best of each counts. "
        f"On {report['device']}; the recorded steps of a GPU are unmeasured.",
        "",
        "| | tokens/s | RTF | CPU s per audio s | peak RSS, MB | load before | share of the CPU had |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {"lanes": "ours", "list_batching": "infer, a list", "one_at_a_time": "infer, one at a time"}
    for part, name in names.items():
        rows += [
            f"| {name}, round {n} | {one['tokens_per_s']:.1f} | {one['rtf']:.2f} | {one['cpu_s_per_audio_s']:.2f} "
            f"| {one['peak_mb']:.0f} "
            f"| {one['load_before']:.1f} | {one['cpu_share']:.0%} |"
            for n, one in enumerate(results[part], 1)
        ]
    if (four := report["four_processes_audio_s_per_s"]) is not None:
        rows.append(f"| four processes, one at a time each | {four * TOKENS_PER_SECOND:.1f} | {1 / four:.2f} | | | | |")
    exact = outcome["exact"]
    rows += ["", "| figure | measured | target | met |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {outcome[name]:.2f} | {kind} {bound:g} | {'yes' if report['met'][name] else 'no'} |"
        for name, (bound, kind) in TARGETS.items()
    ]
    rows += [
        f"| exact | {exact['as_the_package']} | at 1, 4, 8, 16 lanes | {'yes' if report['met']['exact'] else 'no'} |",
        "",
        f"- audio a second, best rounds: {outcome['times_list_batching']:.2f} times a list, "
        f"{outcome['times_one_at_a_time']:.2f} times one at a time",
        f"- the same by CPU time: {outcome['cpu_list_batching']:.2f} and {outcome['cpu_one_at_a_time']:.2f} times",
        f"- first chunk at one lane, share of upstream's: {outcome['first_chunk_exact_share']:.2f} exact, "
        f"{outcome['first_chunk_share']:.2f} as a listener gets it by default (early sound)",
        f"- step time, last tenth against first of {results['flat'][0]['steps']}: {outcome['step_growth']:.2f}",
        f"- peak RSS, share of upstream's at the same batch: {outcome['peak_share']:.2f}; a lane took "
        f"{outcome['mb_per_lane']:.0f} MB, its work included",
        f"- tokens as the package's, by lanes: {exact['as_the_package']}; the same at all lanes: "
        f"{exact['same_at_all_lanes']}",
    ]
    return "\n".join(rows) + "\n"


def versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("torch", "chattts", "transformers"))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{named}, {os.cpu_count()} cores"
