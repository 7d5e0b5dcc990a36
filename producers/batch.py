"""Publishing a file of requests, one a line: bad lines are named and left out, and the end is counted."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from infra.lifecycle import Deadline
from producers.client import Pending, SpeechClient
from producers.drafts import draft, fields_of_line, unknown_fields
from producers.errors import RequestInvalidError, SpeechFailedError
from producers.lines import MAX_LINE_BYTES, Line, line_batches
from schemas.completions import CompletionData
from schemas.requests import SynthesisRequested

# Bad lines named one by one; the rest is only counted.
_MAX_NAMED = 100


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
    def ends(self) -> int:
        """Requests whose end is known, or no longer waited for."""
        return self.completed + self.failed.total() + self.unfinished

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


OnProgress = Callable[[Summary], None]


class Batch:
    """One file on its way. `say` takes lines for people; `progress` is called as requests are published and end."""

    def __init__(
        self, speech: SpeechClient, options: BatchOptions, *, say: Callable[[str], None], progress: OnProgress
    ) -> None:
        self._speech = speech
        self._options = options
        self._say = say
        self._progress = progress
        self._clock = Deadline(options.timeout_s)
        self._waits: set[asyncio.Task[None]] = set()
        self.summary = Summary()

    async def publish(self, file: IO[bytes]) -> Summary:
        """Publish every good line, and wait for the ends when asked to.

        Raises:
            PublishError: the bus stopped taking messages.
        """
        started = time.monotonic()
        try:
            await self._publish_lines(file)
            if self._waits:
                await asyncio.wait(self._waits)
        finally:
            for wait in self._waits:
                wait.cancel()
            await asyncio.gather(*self._waits, return_exceptions=True)
        self.summary.seconds = time.monotonic() - started
        return self.summary

    async def _publish_lines(self, file: IO[bytes]) -> None:
        held: list[SynthesisRequested] = []
        async for lines in line_batches(file):
            requests = self._requests(lines)
            if self._options.strict:
                held += requests
            else:
                await self._send(requests)
        if self.summary.bad_lines > _MAX_NAMED:
            self._say(f"… and {self.summary.bad_lines - _MAX_NAMED} more bad lines")
        if held and not self.summary.bad_lines:
            await self._send(held)

    async def _send(self, requests: list[SynthesisRequested]) -> None:
        if self._options.wait:
            for pending in await self._speech.submit_many(requests):
                wait = asyncio.create_task(self._ended(pending))
                self._waits.add(wait)
                wait.add_done_callback(self._waits.discard)
        else:
            await self._speech.publish_many(requests)
        self.summary.published += len(requests)
        self._progress(self.summary)

    async def _ended(self, pending: Pending) -> None:
        try:
            self.summary.ended(await pending.completion(timeout_s=self._clock.remaining_s))
        except SpeechFailedError as error:
            self.summary.failed[str(error.code or error.completion.status)] += 1
        except Exception:  # too late, or the bus is gone: either way this end was not seen
            self.summary.unfinished += 1
        self._progress(self.summary)

    def _requests(self, lines: list[Line]) -> list[SynthesisRequested]:
        requests = []
        for line in lines:
            self.summary.lines += 1
            try:
                requests.append(self._request(line))
            except RequestInvalidError as error:
                self.summary.bad_lines += 1
                if self.summary.bad_lines <= _MAX_NAMED:
                    self._say(f"line {line.number}: {error}")
        return requests

    def _request(self, line: Line) -> SynthesisRequested:
        if line.content is None:
            raise RequestInvalidError(f"is longer than {MAX_LINE_BYTES} bytes")
        data = fields_of_line(line.content)
        for name in unknown_fields(data):
            if self._options.strict:
                raise RequestInvalidError("is not a field of a request", name[:64])
            self._say(f"line {line.number}: {name[:64]!r} is not a field of a request; ignored")
        return draft({**self._options.defaults, **data})
