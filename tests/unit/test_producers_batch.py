import io
import json

import pytest

from producers.batch import Batch, BatchOptions, Summary
from producers.client import SpeechClient
from schemas.codec import decode
from schemas.codes import ErrorCode
from schemas.completions import ErrorInfo
from schemas.requests import SynthesisRequested
from tests.unit.test_producers_client import Answer, FakeBus, completes

GOOD = '{"text": "你好", "request_id": "g1"}'
LINES = "\n".join([GOOD, "{bad", "", '{"text": ""}', "[1]", '{"text": "ok", "vioce": "x"}', '{"text": "z"}'])


async def _run(
    content: str | bytes, options: BatchOptions, answer: Answer | None = None
) -> tuple[Summary, list[str], FakeBus]:
    bus = FakeBus(answer)
    said: list[str] = []
    data = content.encode() if isinstance(content, str) else content
    async with SpeechClient(bus=bus) as speech:
        batch = Batch(speech, options, say=said.append, progress=lambda _: None)
        summary = await batch.publish(io.BytesIO(data))
    return summary, said, bus


async def test_bad_lines_are_named_and_do_not_stop_the_others() -> None:
    summary, said, bus = await _run(LINES, BatchOptions())
    assert (summary.lines, summary.published, summary.bad_lines) == (6, 3, 3)
    assert [line.split(":")[0] for line in said] == ["line 2", "line 4", "line 5", "line 6"]
    assert "'vioce' is not a field" in said[-1]
    assert [decode(SynthesisRequested, message.value).text for _, message in bus.delivered] == ["你好", "ok", "z"]
    assert not summary.good


async def test_strict_sends_nothing_when_one_line_is_bad() -> None:
    summary, _, bus = await _run(LINES, BatchOptions(strict=True))
    assert (summary.published, summary.bad_lines, bus.delivered) == (0, 4, [])


async def test_strict_sends_all_when_all_are_good() -> None:
    summary, said, _ = await _run(GOOD + "\n" + '{"text": "b"}', BatchOptions(strict=True))
    assert (summary.published, summary.good, said) == (2, True, [])


async def test_lines_that_are_no_text_or_too_long() -> None:
    content = b'\xff\n{"text": "' + b"x" * 300_000 + b'"}\n' + b"[" * 100_000 + b'\n{"text": "a"}'
    summary, said, _ = await _run(content, BatchOptions())
    assert (summary.published, summary.bad_lines) == (1, 3)
    assert said == ["line 1: is not UTF-8", "line 2: is longer than 262144 bytes", "line 3: is nested too deeply"]


async def test_defaults_stand_behind_what_a_line_says() -> None:
    content = '{"text": "a", "priority": "interactive"}\n{"text": "b"}'
    _, _, bus = await _run(content, BatchOptions(defaults={"priority": "bulk"}))
    assert [decode(SynthesisRequested, m.value).priority for _, m in bus.delivered] == ["interactive", "bulk"]


async def test_only_so_many_bad_lines_are_named() -> None:
    summary, said, _ = await _run("{\n" * 250, BatchOptions())
    assert summary.bad_lines == 250
    assert len(said) == 101
    assert said[-1] == "… and 150 more bad lines"


async def test_waiting_counts_every_end() -> None:
    def answer(bus: FakeBus, request: SynthesisRequested) -> None:
        match request.text:
            case "bad":
                error = ErrorInfo(code=ErrorCode.BAD_AUDIO, message="silent")
                bus.complete(str(request.request_id), status="failed", audio=None, error=error)
            case "late":
                pass
            case _:
                bus.complete(str(request.request_id), cached=request.text == "again")

    content = "\n".join(json.dumps({"text": text}) for text in ("one", "again", "bad", "late"))
    summary, _, _ = await _run(content, BatchOptions(wait=True, timeout_s=0.2), answer)
    assert (summary.completed, summary.cached, summary.unfinished) == (2, 1, 1)
    assert summary.failed == {"bad_audio": 1}
    assert summary.audio_s == pytest.approx(2.0)
    assert "2 completed (1 from the cache), 1 failed (bad_audio 1), 1 unfinished" in summary.as_text(waited=True)
    assert json.loads(summary.as_json())["failed"] == {"bad_audio": 1}


async def test_an_empty_file_is_good() -> None:
    summary, _, _ = await _run("", BatchOptions(wait=True), completes)
    assert summary.good
    assert summary.as_text(waited=False).startswith("0 published, in ")
