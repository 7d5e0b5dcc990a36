"""What `make run` runs: the whole of voxbus on this machine, once through.

Starts the embedded stack over a fresh folder, sends `examples/requests.jsonl` with a callback to a receiver of its own,
verifies every webhook's signature, fetches every distinct file into `out/`, listens whether it plays, audits the bus
and the bucket, stops everything, and prints what came of it. Exit status 0 when all of that went well.

    make run        or        python examples/demo.py [--out DIR] [--requests FILE]
"""

import argparse
import asyncio
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from demo_stack import Receiver, Stack
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.errors import UserError
from producers import SpeechClient, SpeechFailedError, download
from producers.audit import Report
from producers.audit_cli import audited
from producers.connection import ClientSettings, settings_from_endpoints
from schemas.completions import CompletionData
from schemas.requests import SynthesisRequested
from schemas.text import primary_language

EXAMPLES = Path(__file__).resolve().parent
console = Console(stderr=True)

# Generous: a cold laptop under load is still a good demo.
_COMPLETION_TIMEOUT_S = 120.0
_WEBHOOK_TIMEOUT_S = 60.0
_OUR_FILES = re.compile(r"\d\d-[a-z]{2,3}-\w+\.(wav|flac|mp3|opus)")
# Root mean square of the samples, full scale 1; quiet speech is above 0.01.
_SILENT_RMS = 0.001


class DemoError(UserError):
    """Something did not come out as it should."""


@dataclass(slots=True)
class Outcome:
    """What the demo found."""

    requests: int
    synthesised: int = 0
    webhooks: int = 0
    files: dict[Path, CompletionData] = field(default_factory=dict)
    seconds: float = 0.0
    report: Report | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio in the files."""
        return sum(one.audio.duration_s for one in self.files.values() if one.audio)


def read_requests(path: Path, callback_url: str) -> list[SynthesisRequested]:
    """The example requests, each with the callback."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        SynthesisRequested.model_validate({**line, "request_id": f"demo-{n:02d}", "callback_url": callback_url})
        for n, line in enumerate(lines, start=1)
    ]


def signing_secret(endpoints_path: Path) -> str:
    """What the stack signs its webhooks with."""
    return Path(json.loads(endpoints_path.read_text())["signing_secret_file"]).read_text().strip()


async def demo(options: argparse.Namespace, data_dir: Path) -> Outcome:
    """Everything, in order."""
    async with Stack(data_dir) as endpoints_path:
        settings = settings_from_endpoints(endpoints_path)
        async with Receiver(signing_secret(endpoints_path)) as receiver:
            started = time.monotonic()
            requests = read_requests(options.requests, receiver.url)
            outcome = Outcome(len(requests))
            with _progress() as progress:
                completions = await _speak(settings, requests, receiver, progress)
                outcome.files = await _fetch(requests, completions, options.out, progress)
                await _webhooks(receiver, {str(one.request_id) for one in requests})
            outcome.webhooks = len(receiver.came)
            outcome.seconds = time.monotonic() - started
            outcome.synthesised = await _synthesised(settings)
            console.print("auditing: one end for every request, its object, its delivery …")
            outcome.report = await audited(settings, wait_s=10)
            console.print("stopping …")
    return outcome


async def _speak(
    settings: ClientSettings, requests: list[SynthesisRequested], receiver: Receiver, progress: Progress
) -> dict[str, CompletionData]:
    """Publish all at once, as a busy day would, and wait for every end."""
    spoken = progress.add_task("spoken", total=len(requests))
    called = progress.add_task("webhooks verified", total=len(requests))
    receiver.on_webhook = lambda: progress.advance(called)
    completions: dict[str, CompletionData] = {}
    async with SpeechClient(settings.kafka, client_id="voxbus-demo") as speech:
        for pending in [*await speech.submit_many(requests)]:
            try:
                completions[pending.request_id] = await pending.completion(timeout_s=_COMPLETION_TIMEOUT_S)
            except SpeechFailedError as error:
                raise DemoError(f"request {pending.request_id} failed: {error}") from None
            except TimeoutError as error:
                raise DemoError(str(error)) from None
            progress.advance(spoken)
    return completions


async def _fetch(
    requests: list[SynthesisRequested], completions: dict[str, CompletionData], out: Path, progress: Progress
) -> dict[Path, CompletionData]:
    """Every distinct file once, named by the first request that asked for it."""
    await asyncio.to_thread(_clear, out)
    first: dict[str, tuple[SynthesisRequested, CompletionData]] = {}
    for request in requests:
        completion = completions[str(request.request_id)]
        if completion.audio is None:
            raise DemoError(f"the completion of {request.request_id} names no audio")
        first.setdefault(completion.audio.sha256, (request, completion))
    task = progress.add_task("files fetched", total=len(first))
    files: dict[Path, CompletionData] = {}
    async with aiohttp.ClientSession() as session:
        for number, (request, completion) in enumerate(first.values(), start=1):
            assert completion.audio is not None
            language = "yue" if request.dialect == "cantonese" else primary_language(request.language, request.text)
            path = out / f"{number:02d}-{language}-{request.voice}.{completion.audio.format}"
            await download(completion.audio, path, session=session)
            await asyncio.to_thread(_listen, path, completion.audio.duration_s)
            files[path] = completion
            progress.advance(task)
    return files


def _clear(out: Path) -> None:
    """Only what an earlier demo left; anything else in the folder is somebody's."""
    out.mkdir(parents=True, exist_ok=True)
    for path in out.iterdir():
        if _OUR_FILES.fullmatch(path.name):
            path.unlink()


def _listen(path: Path, duration_s: float) -> None:
    """Whether the file opens, lasts as long as was said, and is not silent."""
    import numpy as np  # noqa: PLC0415  # slow to import, and only now needed
    import soundfile  # noqa: PLC0415

    samples, rate = soundfile.read(path)
    seconds = len(samples) / rate
    # Lossy codecs pad by some tens of milliseconds.
    if abs(seconds - duration_s) > 0.2:
        raise DemoError(f"{path} lasts {seconds:.2f} s, its completion says {duration_s:.2f} s")
    if float(np.sqrt(np.mean(np.square(samples)))) < _SILENT_RMS:
        raise DemoError(f"{path} is silent")


async def _webhooks(receiver: Receiver, expected: set[str]) -> None:
    try:
        async with asyncio.timeout(_WEBHOOK_TIMEOUT_S):
            while not expected <= receiver.came.keys():
                await receiver.next_one()
    except TimeoutError:
        missing = sorted(expected - receiver.came.keys())
        raise DemoError(f"no verified webhook within {_WEBHOOK_TIMEOUT_S:g} s for: {', '.join(missing)}") from None
    if receiver.refused:
        raise DemoError(f"{receiver.refused} webhooks had a wrong signature")


async def _synthesised(settings: ClientSettings) -> int:
    """How many requests reached the engine, as the dedup app counts them."""
    async with aiohttp.ClientSession() as session, session.get(f"{settings.dedup_web}/stats/") as response:
        figures: dict[str, Any] = await response.json()
    return int(figures["misses"])


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def show(outcome: Outcome, out: Path) -> None:
    """The files and the summary, on standard output."""
    output = Console()
    files = Table("file", "seconds", "kB", title=f"Audio in {out}/", title_justify="left")
    for path, completion in outcome.files.items():
        if completion.audio is not None:
            files.add_row(path.name, f"{completion.audio.duration_s:.1f}", f"{completion.audio.bytes / 1000:.0f}")
    output.print(files)
    summary = Table("requests", "synthesised", "collapsed", "files", "audio", "webhooks", "time", title="Summary")
    summary.add_row(
        str(outcome.requests),
        str(outcome.synthesised),
        str(outcome.requests - outcome.synthesised),
        str(len(outcome.files)),
        f"{outcome.audio_s:.1f} s",
        f"{outcome.webhooks} verified",
        f"{outcome.seconds:.1f} s",
    )
    output.print(summary)


def judge(outcome: Outcome) -> None:
    """Whether the demo may call itself good.

    Raises:
        DemoError: the audit found something.
    """
    report = outcome.report
    if report is None or not report.good:
        raise DemoError(f"the audit found: {json.dumps(report.as_json()['findings'] if report else None)}")


async def _stoppable(options: argparse.Namespace, data_dir: Path) -> Outcome:
    """SIGTERM ends the demo as Ctrl-C does: the stack is stopped first."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await demo(options, data_dir)


def main() -> int:
    """Run the demo; its data go with it when it was good, and stay for a look when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--requests", type=Path, default=EXAMPLES / "requests.jsonl")
    options = parser.parse_args()
    data_dir = Path(tempfile.mkdtemp(prefix="voxbus-demo-"))
    try:
        outcome = asyncio.run(_stoppable(options, data_dir))
        show(outcome, options.out)
        judge(outcome)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")
        shutil.rmtree(data_dir, ignore_errors=True)
        return 130
    except (UserError, OSError, aiohttp.ClientError) as error:
        print(f"demo: {error}\ndemo: data and logs are kept in {data_dir}", file=sys.stderr)
        return 1
    shutil.rmtree(data_dir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
