"""Publishing a file of requests, one a line: bad lines are named and left out, and the end is counted."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from infra.lifecycle import Deadline
from producers.client import Pending, SpeechClient
from producers.connection import ClientSettings
from producers.drafts import draft, fields_of_line, unknown_fields
from producers.errors import RequestInvalidError, SpeechFailedError, SpeechTimeoutError
from producers.terminal import note, progress_bar
from schemas.completions import CompletionData
from schemas.requests import SynthesisRequested

# Well above the longest valid request (10,000 characters, each up to 12 bytes as \\u escapes, and the metadata).
_MAX_LINE_BYTES = 262_144
# Lines checked and sent together; bounds what is held of a long file.
_BATCH_LINES = 1_000
# Bad lines named one by one; the rest is only counted.
_MAX_NAMED = 100


class Lines(Protocol):
    """An open binary file."""

    def readline(self, size: int = -1, /) -> bytes:
        """Up to and including the next newline, at most `size` bytes; empty at the end."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How to publish a file."""

    wait: bool = False
    strict: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)
    timeout_s: float = 600.0


@dataclass(slots=True)
class Summary:
    """What became of a file's lines."""

    lines: int = 0
    bad_lines: int = 0
    published: int = 0
    completed: int = 0
    cached: int = 0
    unfinished: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By code, or by status where there is none."""
    audio_s: float = 0.0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing was bad, failed, or left open."""
        return not (self.bad_lines or self.failed or self.unfinished)

    def ended(self, completion: CompletionData) -> None:
        """Count a good end."""
        self.completed += 1
        self.cached += completion.cached
        self.audio_s += completion.audio.duration_s if completion.audio else 0.0

    def as_json(self) -> str:
        """One line."""
        counts = {name: getattr(self, name) for name in ("lines", "bad_lines", "published", "completed", "cached")}
        rest = {"failed": dict(self.failed), "unfinished": self.unfinished}
        times = {"audio_s": round(self.audio_s, 3), "seconds": round(self.seconds, 3)}
        return json.dumps(counts | rest | times)

    def as_text(self, *, waited: bool) -> str:
        """For people."""
        parts = [f"{self.published} published"]
        if self.bad_lines:
            parts.append(f"{self.bad_lines} bad lines left out" if self.published else f"{self.bad_lines} bad lines")
        if waited:
            parts.append(f"{self.completed} completed ({self.cached} from the cache)")
            if self.failed:
                codes = ", ".join(f"{code} {count}" for code, count in self.failed.most_common())
                parts.append(f"{self.failed.total()} failed ({codes})")
            if self.unfinished:
                parts.append(f"{self.unfinished} unfinished")
            parts.append(f"{self.audio_s:.1f} s of audio")
        return ", ".join(parts) + f", in {self.seconds:.1f} s"


async def publish_lines(settings: ClientSettings, file: Lines, options: BatchOptions) -> Summary:
    """Publish every good line of a file.

    Raises:
        ServerUnavailableError: Kafka does not answer.
        PublishError: the bus stopped taking messages.
    """
    summary = Summary()
    clock = Deadline(options.timeout_s)
    with progress_bar(unit="requests") as progress:
        task = progress.add_task("publishing", total=None)
        async with SpeechClient(settings.kafka, client_id="voxbus-publish") as speech:
            waits: list[asyncio.Task[None]] = []
            try:
                for batch in _batches(_requests(file, options, summary), whole=options.strict):
                    if options.strict and summary.bad_lines:
                        break
                    if options.wait:
                        pending = await speech.submit_many(batch)
                        waits += [asyncio.create_task(_count(one, clock, summary)) for one in pending]
                        for wait in waits[-len(pending) :]:
                            wait.add_done_callback(lambda _: progress.advance(task))
                    else:
                        await speech.publish_many(batch)
                    summary.published += len(batch)
                    progress.update(
                        task, total=summary.published, completed=None if options.wait else summary.published
                    )
                progress.update(task, description="waiting" if options.wait else "published")
                await asyncio.gather(*waits)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
    summary.seconds = clock.budget_s - clock.remaining_s if not clock.passed else clock.budget_s
    return summary


async def _count(pending: Pending, clock: Deadline, summary: Summary) -> None:
    try:
        summary.ended(await pending.completion(timeout_s=clock.remaining_s))
    except SpeechFailedError as error:
        summary.failed[str(error.code or error.completion.status)] += 1
    except SpeechTimeoutError:
        summary.unfinished += 1


def _batches(requests: Iterator[SynthesisRequested], *, whole: bool) -> Iterator[list[SynthesisRequested]]:
    """Lists of bounded length; all in one when nothing may be sent before the last line was seen."""
    batch: list[SynthesisRequested] = []
    for request in requests:
        batch.append(request)
        if len(batch) >= _BATCH_LINES and not whole:
            yield batch
            batch = []
    if batch:
        yield batch


def _requests(file: Lines, options: BatchOptions, summary: Summary) -> Iterator[SynthesisRequested]:
    for number, line in _numbered(file):
        summary.lines += 1
        try:
            yield _request(number, line, options)
        except RequestInvalidError as error:
            summary.bad_lines += 1
            if summary.bad_lines <= _MAX_NAMED:
                note(f"line {number}: {error}")
    if summary.bad_lines > _MAX_NAMED:
        note(f"… and {summary.bad_lines - _MAX_NAMED} more bad lines")


def _request(number: int, line: bytes, options: BatchOptions) -> SynthesisRequested:
    if len(line) > _MAX_LINE_BYTES:
        raise RequestInvalidError(f"is longer than {_MAX_LINE_BYTES} bytes")
    data = fields_of_line(line)
    for name in unknown_fields(data):
        if options.strict:
            raise RequestInvalidError("is not a field of a request", name)
        note(f"line {number}: {name[:64]!r} is not a field of a request; ignored")
    return draft({**options.defaults, **data})


def _numbered(file: Lines) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, empty ones left out; a line that is too long is cut just past the limit."""
    for number in count(1):
        line = file.readline(_MAX_LINE_BYTES + 1)
        if not line:
            return
        rest = line
        while len(rest) > _MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(_MAX_LINE_BYTES + 1)
        if line.strip():
            yield number, line
