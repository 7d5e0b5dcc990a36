"""ChatTTS on our decode loop against the package's own `infer`, same weights, same requests, same run.

    python benchmarks/engine.py --quick
    python benchmarks/engine.py --json figures.json

Needs torch and ChatTTS (`make setup`). Weights are random and of full size (1.2 GB, written to a temporary folder):
cost does not depend on their values, as every request's length is forced. Every figure is of a process of its own,
and rounds alternate between the contestants, so that a busy machine is busy for all. Exits 1 when a target is missed.

With `--device cuda` there are 64 lanes, and a row for four processes on the card, each with one request at a time. No
GPU has run that yet.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine_report import processor, summary, table, verdicts, versions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TOKENS_PER_SECOND = 24_000 / 512
TEXT = "welcome to the service 你好 good day "
FIRST_CHUNK_S = 0.15  # the worker's default: what a listener gets first
SAMPLE_RATE = 24_000
FLAT_SENTENCES = 5


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    requests: int
    batch: int
    median_s: float
    longest_s: float
    alone: int  # of the requests, also spoken one at a time
    flat_steps: int
    rounds: int
    size: str = "full"

    def on(self, device: str) -> "Scale":
        """The same for a device: a GPU has 64 lanes, and requests for all of them."""
        return self if device == "cpu" else replace(self, requests=128, batch=64, alone=8)


# Requests for eight batches: it is a queue that is measured, not how lanes fall empty at its end (with two batches a
# third of the time).
FULL = Scale(requests=128, batch=16, median_s=2.2, longest_s=8.0, alone=3, flat_steps=700, rounds=2)
SHORT = Scale(requests=128, batch=16, median_s=1.0, longest_s=3.5, alone=3, flat_steps=300, rounds=1)
QUICK = Scale(requests=8, batch=4, median_s=0.7, longest_s=2.0, alone=2, flat_steps=60, rounds=1, size="small")


def lengths(scale: Scale) -> list[int]:
    """Tokens of each request: sentences are lognormal in length, few are long."""
    draw = random.Random(7)
    seconds = [
        min(scale.longest_s, max(0.5, draw.lognormvariate(0, 0.65) * scale.median_s)) for _ in range(scale.requests)
    ]
    return [round(s * TOKENS_PER_SECOND) for s in seconds]


def representative(tokens: list[int], count: int) -> list[int]:
    """So few lengths with the spread and the mean of all: of equal parts of the sorted ones, each part's mean."""
    ordered = sorted(tokens)
    edges = [len(ordered) * n // count for n in range(count + 1)]
    return [round(statistics.mean(ordered[a:b])) for a, b in pairwise(edges)]


class Contest:
    """What one process measures."""

    def __init__(self, assets: Path, threads: int, scale: Scale, device: str) -> None:
        import torch

        from synth_consumer.engines.chattts.assets import find_assets
        from synth_consumer.engines.chattts.loading import load_chat

        self.scale, self.lengths = scale, lengths(scale)
        self.chat = load_chat(find_assets(str(assets)), device, threads)
        self._model: Any = None
        torch.manual_seed(3)
        self.speaker = self.chat.sample_random_speaker()

    def params(self, tokens: int, seed: int, **more: Any) -> Any:
        return self.chat.InferCodeParams(
            spk_emb=self.speaker,
            manual_seed=seed,
            min_new_token=tokens,
            max_new_token=tokens,
            ensure_non_empty=False,
            show_tqdm=False,
            **more,
        )

    def theirs(self, tokens: int, count: int = 1, stream: bool = False) -> Any:
        """The package's own `infer`, without refinement and without work on the text."""
        return self.chat.infer(
            [TEXT] * count,
            stream=stream,
            lang="zh",
            skip_refine_text=True,
            split_text=False,
            do_text_normalization=False,
            do_homophone_replacement=False,
            params_infer_code=self.params(tokens, 1),
        )

    def their_tokens(self, tokens: int, seed: int) -> list[tuple[int, ...]]:
        """What `infer` makes its sound of."""
        result = next(self.chat._infer_code([TEXT], False, self.chat.device, True, self.params(tokens, seed)))
        return list(map(tuple, result.ids[0].tolist()))

    def decoder(self, lanes: int) -> Any:
        from synth_consumer.engines.chattts.decode import Decoder
        from synth_consumer.engines.chattts.memory import LANE_POSITIONS

        return Decoder(self.model(), lanes, LANE_POSITIONS)

    def model(self) -> Any:
        """Fused once."""
        from synth_consumer.engines.chattts.weights import fuse

        if self._model is None:
            self._model = fuse(self.chat)
        return self._model

    def take_over(self) -> None:
        """What the engine does when it loads: from here on the package's `infer` is gone."""
        from synth_consumer.engines.chattts.weights import let_go

        self.model()
        let_go(self.chat)
        self.ours(1, [2])

    def join(self, decoder: Any, tokens: int, seed: int = 1, early: bool = False) -> Any:
        from synth_consumer.engines.chattts.prompts import speech_prompt
        from synth_consumer.engines.chattts.sampling import Sampling
        from synth_consumer.engines.chattts.speaking import SentenceRun

        prompt = speech_prompt(self.chat, TEXT, self.speaker, "[speed_5]")
        run = decoder.join(prompt, Sampling(seed, min_tokens=tokens), tokens)
        return SentenceRun(self.chat, decoder, run, tokens, early)

    def ours(self, lanes: int, wanted: list[int], seeds: list[int] | None = None) -> tuple[list[Any], list[float]]:
        """Speak them all; the runs, and the seconds of every step."""
        decoder = self.decoder(lanes)
        waiting = deque(zip(wanted, seeds or range(len(wanted)), strict=True))
        held: list[Any] = []
        ended, steps = [], []
        while waiting or held:
            began = time.perf_counter()
            while waiting and decoder.free:
                held.append(self.join(decoder, *waiting.popleft()))
            advanced = decoder.step()
            for sentence in [one for one in held if one.run in advanced]:
                spoken = sentence.advance()
                if spoken is not None and spoken.done:
                    held.remove(sentence)
                    ended.append(sentence.run)
            steps.append(time.perf_counter() - began)
        return ended, steps

    # Parts, each the whole work of a process.

    def one_at_a_time(self) -> dict[str, Any]:
        chosen = representative(self.lengths, self.scale.alone)
        began = time.perf_counter()
        for tokens in chosen:
            self.theirs(tokens)
        return _speech(chosen, time.perf_counter() - began)

    def list_batching(self) -> dict[str, Any]:
        began = time.perf_counter()
        for at in range(0, len(self.lengths), self.scale.batch):
            batch = self.lengths[at : at + self.scale.batch]
            # Rows that have ended are decoded on until the longest has.
            self.theirs(max(batch), len(batch))
        return _speech(self.lengths, time.perf_counter() - began)

    def lanes(self) -> dict[str, Any]:
        began = time.perf_counter()
        _, steps = self.ours(self.scale.batch, self.lengths)
        figures = _speech(self.lengths, time.perf_counter() - began)
        return figures | {"slowest_step_s": max(steps)}

    def exact(self) -> dict[str, Any]:
        """Tokens of both, at several counts of lanes."""
        tokens, seeds = 24, list(range(1, 17))
        expected = {seed: self.their_tokens(tokens, seed) for seed in seeds}
        equal, states = {}, {}
        for lanes in (1, 4, 8, 16):
            runs, _ = self.ours(lanes, [tokens] * len(seeds), seeds)
            said = {run.sampling.seed: run.tokens for run in runs}
            equal[lanes] = all(said[seed] == expected[seed] for seed in expected)
            states[lanes] = said
        return {"as_the_package": equal, "same_at_all_lanes": all(states[n] == states[1] for n in states)}

    def first_chunk(self) -> dict[str, Any]:
        """Until the worker has its first chunk to publish; `early` is the default."""
        from synth_consumer.worker.chunking import ChunkCutter
        from synth_consumer.worker.pcm import to_pcm16

        began = time.perf_counter()
        stream = self.theirs(90, stream=True)
        next(iter(stream))
        figures = {"theirs_s": time.perf_counter() - began}
        stream.close()
        decoder = self.decoder(1)
        for name, early in (("exact_s", False), ("early_s", True)):
            cutter = ChunkCutter(SAMPLE_RATE, first_s=FIRST_CHUNK_S, chunk_s=1.0)
            began = time.perf_counter()
            sentence = self.join(decoder, 90, early=early)
            while True:
                decoder.step()
                spoken = sentence.advance()
                if spoken is not None and list(cutter.feed(to_pcm16(spoken.pcm))):
                    break
            figures[name] = time.perf_counter() - began
            sentence.close()
        return figures

    def flat(self) -> dict[str, Any]:
        """Sentence after sentence: the machine's own drift within one of them falls on both ends of others."""
        tenth = max(5, self.scale.flat_steps // 10)
        firsts, lasts = [], []
        for _ in range(FLAT_SENTENCES):
            _, steps = self.ours(1, [self.scale.flat_steps])
            firsts.append(statistics.median(steps[5 : 5 + tenth]) * 1e3)
            lasts.append(statistics.median(steps[-tenth:]) * 1e3)
        first, last = statistics.mean(firsts), statistics.mean(lasts)
        growths = [late / early for early, late in zip(firsts, lasts, strict=True)]
        return {
            "steps": len(steps),
            "first_tenth_ms": first,
            "last_tenth_ms": last,
            "growth": last / first,
            "growth_of_each": growths,
        }


PARTS: dict[str, Callable[[Contest], dict[str, Any]]] = {
    "exact": Contest.exact,
    "first_chunk": Contest.first_chunk,
    "flat": Contest.flat,
    "lanes": Contest.lanes,
    "list_batching": Contest.list_batching,
    "one_at_a_time": Contest.one_at_a_time,
}
OURS_ALONE = ("flat", "lanes")
EVERY_ROUND = ("first_chunk", "lanes", "list_batching", "one_at_a_time")


def _speech(tokens: list[int], seconds: float) -> dict[str, Any]:
    audio_s = sum(tokens) / TOKENS_PER_SECOND
    return {
        "audio_s": audio_s,
        "tokens_per_s": sum(tokens) / seconds,
        "audio_s_per_s": audio_s / seconds,
        "rtf": seconds / audio_s,
    }


def measure(part: str, assets: Path, threads: int, scale: Scale, device: str) -> dict[str, Any]:
    contest = Contest(assets, threads, scale, device)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Each pays beforehand for what only comes first, and for nothing of the other.
    if part in OURS_ALONE:
        contest.take_over()
    else:
        contest.theirs(2)
    load = os.getloadavg()[0]
    cpu = time.process_time()
    began = time.perf_counter()
    figures = PARTS[part](contest)
    # Share of the asked threads that the machine gave us.
    used = time.process_time() - cpu
    figures["cpu_share"] = used / (time.perf_counter() - began) / threads
    if "audio_s" in figures:
        # What is left to compare by where others use the machine too.
        figures["cpu_s_per_audio_s"] = used / figures["audio_s"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return figures | {"load_before": load, "loaded_mb": loaded / 1024, "peak_mb": peak / 1024}


def in_child(part: str, options: argparse.Namespace, assets: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--assets", str(assets), "--threads", str(options.threads)]
    command += ["--device", options.device]
    command += [flag for flag, given in (("--quick", options.quick), ("--short", options.short)) if given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{part}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def four_processes(options: argparse.Namespace, assets: Path) -> float:
    """Audio seconds a second of the layout with four processes on a card, each with one request at a time."""
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: in_child("one_at_a_time", options, assets), range(4)))
    return sum(float(figures["audio_s_per_s"]) for figures in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small weights and few requests: does it run")
    parser.add_argument("--short", action="store_true", help="full-size weights, shorter sentences, one round")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--assets", type=Path, help="weights to use instead of random ones")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    scale = (QUICK if options.quick else SHORT if options.short else FULL).on(options.device)
    if options.part:
        print(json.dumps(measure(options.part, options.assets, options.threads, scale, options.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        assets = options.assets
        if assets is None:
            from tests.chattts_assets import write_assets

            assets = write_assets(Path(folder), size="full" if scale.size == "full" else "small")
        results: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
        rounds = options.rounds or scale.rounds
        for n in range(rounds):
            # The order alternates too.
            for part in PARTS if n % 2 == 0 else reversed(PARTS):
                if n == 0 or part in EVERY_ROUND:
                    results[part].append(in_child(part, options, assets))
        four = four_processes(options, assets) if options.device != "cpu" else None
    outcome = summary(results, scale.batch)
    report = {
        "when": datetime.now(UTC).date().isoformat(),
        "machine": processor(),
        "threads": options.threads,
        "device": options.device,
        "rounds": rounds,
        "versions": versions(),
        "scale": vars(scale),
        "results": results,
        "summary": outcome,
        "four_processes_audio_s_per_s": four,
        "met": verdicts(outcome),
    }
    text = table(report)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        name = f"engine-{report['when']}"
        (RESULTS / f"{name}.md").write_text(text)
        (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
        if not all(report["met"].values()):
            sys.exit(1)


if __name__ == "__main__":
    main()
