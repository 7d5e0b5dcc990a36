"""The whole pipeline on one embedded stack: what users publish, by whatever means, and what they get.

One stack for all tests here, with the tone engine: sound in milliseconds, the same every time.
"""

import asyncio
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session
from aiohttp import web
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from standardwebhooks import Webhook

from infra.cli import voxbus
from infra.embedded import launcher
from producers import SpeechClient, SpeechFailedError, download
from producers.bucket import key_of
from producers.connection import ClientSettings, settings_from_endpoints
from producers.dead_letters import Choice, Letter, letters
from producers.drafts import new_request_id
from producers.lookup import last_status
from producers.topic_log import topic_log
from schemas import topics
from schemas.codes import AudioFormat, ErrorCode
from schemas.completions import RequestStatus
from tests.environment import environment
from tests.waiting import eventually

_START_TIMEOUT_S = 90.0
_VOXBUS = [sys.executable, "-c", "from infra.cli import main; main()"]
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Running:
    """The stack, as its users see it."""

    endpoints: Path
    settings: ClientSettings
    signing_secret: str

    def voxbus(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command as a person runs it."""
        return subprocess.run(
            [*_VOXBUS, *arguments, "--endpoints", str(self.endpoints)],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=90,
            check=False,
        )

    def in_process(self, *arguments: str) -> Result:
        """The same without the second that starting a process and its imports take."""
        return CliRunner().invoke(voxbus, [*arguments, "--endpoints", str(self.endpoints)])

    def produce(self, value: bytes, key: bytes | None = None) -> None:
        """Publish bytes as any Kafka client does."""

        def on_delivery(error: object, _message: Any) -> None:
            assert error is None, error

        options = {"bootstrap.servers": self.settings.kafka.bootstrap_servers, "message.max.bytes": 20_000_000}
        producer = Producer(options)
        producer.produce(topics.REQUESTS, value=value, key=key, on_delivery=on_delivery)
        assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("stack")
    data = folder / "data"
    tied = [sys.executable, launcher.__file__, str(os.getpid()), *_VOXBUS]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*tied, "up", "--data-dir", str(data), "--engine", "tone"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda stdout: lines.put(stdout.readline()), args=(process.stdout,), daemon=True).start()
    with closing(process.stdout):
        try:
            line = lines.get(timeout=_START_TIMEOUT_S)
            assert line, (folder / "up.log").read_text()
            secret = Path(json.loads(line)["signing_secret_file"]).read_text().strip()
            yield Running(data / "endpoints.json", settings_from_endpoints(data / "endpoints.json"), secret)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert process.returncode == 0, (folder / "up.log").read_text()


@pytest.fixture
async def speech(stack: Running) -> AsyncIterator[SpeechClient]:
    async with SpeechClient(stack.settings.kafka) as client:
        yield client


# --- what is asked for is what comes -------------------------------------------------------------


@pytest.mark.parametrize("audio_format", list(AudioFormat))
async def test_every_format_comes_as_the_completion_says(
    speech: SpeechClient, tmp_path: Path, audio_format: AudioFormat
) -> None:
    completion = await speech.synthesize("四种格式。 All four formats.", format=audio_format, metadata={"chat": 7})
    assert completion.audio is not None
    assert completion.audio.format is audio_format
    assert completion.metadata == {"chat": 7}
    path = await download(completion.audio, tmp_path / f"a.{audio_format}")
    assert path.stat().st_size == completion.audio.bytes > 500


async def test_a_repeat_is_answered_from_what_is_stored(speech: SpeechClient) -> None:
    first = await speech.synthesize("重复的话只说一次。")
    again = await speech.synthesize("重复的话 只说一次。")  # a space that nobody hears
    assert (first.cached, again.cached) == (False, True)
    assert first.audio is not None
    assert again.audio is not None
    assert again.audio.sha256 == first.audio.sha256
    assert again.fingerprint == first.fingerprint


async def test_progress_goes_forward_to_the_end(speech: SpeechClient) -> None:
    seen: list[RequestStatus] = []
    await speech.synthesize("一步一步来。", on_status=seen.append)
    percents = [status.percent for status in seen]
    assert percents == sorted(percents)
    assert (str(seen[0].state), str(seen[-1].state), percents[-1]) == ("accepted", "completed", 100)


async def test_the_webhook_is_signed_and_is_the_completion(stack: Running, speech: SpeechClient) -> None:
    came: list[dict[str, Any]] = []

    async def receive(request: web.Request) -> web.Response:
        came.append(Webhook(stack.signing_secret).verify(await request.read(), dict(request.headers)))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        completion = await speech.synthesize("请回电。", callback_url=url)
        await eventually(lambda: came, timeout_s=20)
    finally:
        await runner.cleanup()
    assert came[0]["type"] == "speech.completed"
    assert came[0]["data"]["request_id"] == completion.request_id
    assert completion.audio is not None
    assert came[0]["data"]["audio"]["sha256"] == completion.audio.sha256


async def test_bare_json_from_any_kafka_client_is_served(stack: Running) -> None:
    address = stack.settings.kafka.bootstrap_servers
    command = [sys.executable, str(_EXAMPLES / "publish_bare_json.py"), "你好，世界", "--bootstrap", address]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (await _ended(stack, done.stdout.strip()))["state"] == "completed"


async def test_bare_json_without_an_id_is_served_under_one_of_ours(stack: Running) -> None:
    async with topic_log(stack.settings.kafka, client_id="test") as log:
        mark = new_request_id()
        stack.produce(
            json.dumps({"text": "没有编号也行。", "metadata": {"mark": mark}}).encode(), key=b"any key at all"
        )

        async def completed() -> list[bytes]:
            # By its mark: requests of other tests may end meanwhile.
            return [one.key async for one in log.records(topics.COMPLETED) if mark.encode() in (one.value or b"")]

        [request_id] = await eventually(completed, timeout_s=20)
    assert (await _ended(stack, request_id.decode()))["state"] == "completed"


# --- bad input gets a clear end, and the next good request is served -----------------------------


def _request(**fields: object) -> bytes:
    return json.dumps({"text": "好的。", **fields}, ensure_ascii=False).encode()


_BAD = {
    "malformed JSON": (b'{"text": "oops', ErrorCode.INVALID_REQUEST, ""),
    "not an object": (b"[1, 2]", ErrorCode.INVALID_REQUEST, ""),
    "bytes": (b"\xff\xfe\x00", ErrorCode.INVALID_REQUEST, ""),
    "empty": (b"", ErrorCode.INVALID_REQUEST, ""),
    "10 MB": (_request(text="好" * 3_500_000), ErrorCode.INVALID_REQUEST, "/text"),
    "unknown voice": (_request(request_id="bad-voice", voice="nobody"), ErrorCode.UNSUPPORTED_VOICE, "/voice"),
    "unknown dialect": (_request(request_id="bad-dia", dialect="klingon"), ErrorCode.UNSUPPORTED_DIALECT, "/dialect"),
    "only emoji": (_request(request_id="bad-emoji", text="😀🎉"), ErrorCode.TEXT_NOT_SPEAKABLE, "/text"),
    "10,001 characters": (_request(request_id="bad-long", text="a" * 10_001), ErrorCode.INVALID_REQUEST, "/text"),
    "id with spaces": (_request(request_id="two words"), ErrorCode.INVALID_REQUEST, "/request_id"),
    "callback": (_request(request_id="bad-cb", callback_url="ftp://x/y"), ErrorCode.INVALID_REQUEST, "/callback_url"),
}


@pytest.mark.parametrize("name", _BAD)
async def test_bad_input_ends_with_its_code_and_the_next_is_served(
    stack: Running, speech: SpeechClient, name: str
) -> None:
    value, code, pointer = _BAD[name]
    stack.produce(value)
    good = await speech.submit(f"下一个请求。{name}")
    assert (await good.completion(timeout_s=30)).audio

    letter = await eventually(lambda: _letter_of(stack, value), timeout_s=20)
    assert (letter.reason.code, letter.reason.pointer) == (code, pointer)
    assert letter.reason.value_bytes == len(value)
    assert letter.reason.truncated or letter.message.value == value
    try:
        request_id = json.loads(value)["request_id"]
    except (ValueError, TypeError, KeyError):
        return
    if " " not in request_id:
        ended = await _ended(stack, request_id)
        assert (ended["state"], ended["error"]["code"]) == ("failed", code)


async def test_a_failure_reaches_the_client_with_its_code(speech: SpeechClient) -> None:
    with pytest.raises(SpeechFailedError) as caught:
        await speech.synthesize("hello", voice="nobody")
    assert caught.value.code is ErrorCode.UNSUPPORTED_VOICE


# --- the commands --------------------------------------------------------------------------------


def test_say_saves_the_file_and_prints_its_name(stack: Running, tmp_path: Path) -> None:
    target = tmp_path / "hello.mp3"
    done = stack.voxbus("say", "hello there", "-o", str(target))
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert target.stat().st_size > 500


def test_say_writes_to_standard_output_nothing_but_the_audio(stack: Running) -> None:
    done = stack.in_process("say", "hello there", "-o", "-", "--format", "flac")
    assert done.exit_code == 0, done.stderr
    assert done.stdout_bytes[:4] == b"fLaC"
    assert "s of speech" in done.stderr


def test_say_ends_with_the_code_of_the_failure(stack: Running, tmp_path: Path) -> None:
    done = stack.voxbus("say", "hello", "--voice", "nobody", "-o", str(tmp_path / "a.wav"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("voxbus: unsupported_voice: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_publish_counts_every_end(stack: Running) -> None:
    lines = ['{"text": "甲"}', '{"text": "甲"}', "{bad", '{"text": "乙", "voice": "nobody"}']
    done = stack.voxbus("publish", "-", "--wait", "--json", stdin="\n".join(lines))
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert done.stderr.startswith("line 3: is not JSON")
    assert (summary["published"], summary["completed"], summary["bad_lines"]) == (3, 2, 1)
    assert summary["failed"] == {"unsupported_voice": 1}


def test_publishing_a_file_again_counts_the_ends_of_the_first_time(stack: Running) -> None:
    lines = '{"request_id": "twice-1", "text": "两次"}\n{"request_id": "twice-2", "text": "x", "voice": "nobody"}'
    summaries = [json.loads(stack.voxbus("publish", "-", "--wait", "--json", stdin=lines).stdout) for _ in range(2)]
    assert [(each["completed"], each["failed"], each["unfinished"]) for each in summaries] == [
        (1, {"unsupported_voice": 1}, 0)
    ] * 2


async def test_status_comes_from_the_view_and_without_it_from_the_log(stack: Running, speech: SpeechClient) -> None:
    completion = await speech.synthesize("状态如何？")
    await _ended(stack, completion.request_id)
    without_view = stack.settings.model_copy(update={"dedup_web": "http://127.0.0.1:1"})
    for settings in (stack.settings, without_view):
        found = await last_status(settings, completion.request_id)
        assert found is not None
        assert json.loads(found)["state"] == "completed"
        assert await last_status(settings, "never-seen") is None


def test_dead_letters_are_listed_shown_and_replayed(stack: Running) -> None:
    # Another text each time: what is replayed without an id becomes another letter of the same content.
    stack.produce(value := _request(text=f"secret words {new_request_id()}", speed=99))
    letter = _sync(eventually(lambda: _letter_of(stack, value), timeout_s=20))

    listed = stack.in_process("dlq", "list", "--code", "invalid_request")
    row = next(line for line in listed.stdout.splitlines() if line.startswith(f"{letter.id} "))
    assert "/speed" in row
    assert "secret words" not in listed.stdout

    assert "secret words" not in stack.in_process("dlq", "show", letter.id).stdout
    assert "secret words" in json.loads(stack.in_process("dlq", "show", letter.id, "--content").stdout)["content"]

    before = len(_sync(_letters(stack)))
    assert stack.in_process("dlq", "replay", letter.id).stdout == "1 replayed\n"
    replayed = _sync(eventually(lambda: _more_letters(stack, before), timeout_s=20))
    assert any(one.message.value == letter.message.value and one.id != letter.id for one in replayed)


def test_a_failed_request_gets_another_try_under_a_new_id(stack: Running) -> None:
    stack.produce(value := _request(request_id="once", voice="nobody", metadata={"try": "again"}))
    letter = _sync(eventually(lambda: _letter_of(stack, value), timeout_s=20))
    done = stack.in_process("dlq", "replay", letter.id)
    replayed, count = done.stdout.splitlines()
    letter_id, request_id = replayed.split()
    assert (letter_id, count) == (letter.id, "1 replayed")
    assert f"request once ended as failed and stays so; sent again as {request_id}" in done.stderr
    assert _sync(_ended(stack, request_id))["error"]["code"] == "unsupported_voice"  # nobody has come yet


def test_the_audit_is_good_and_finds_a_lost_and_a_damaged_object(stack: Running) -> None:
    completion = _sync(_spoken(stack, "会丢的文件。"))
    good = stack.in_process("audit", "--wait", "20")
    assert good.exit_code == 0, good.output
    counts = json.loads(good.stdout)
    assert counts["completed"] >= 1
    assert counts["open"] == []
    assert counts["callbacks"] == counts["delivered"] + counts["callbacks_dead_lettered"]

    key = key_of(completion.audio.url, stack.settings.s3)
    assert key is not None
    content = _sync(_replace(stack, key, None))
    lost = stack.voxbus("audit")
    assert lost.returncode == 1
    assert json.loads(lost.stdout)["findings"] == {"object_missing": [completion.request_id]}

    _sync(_replace(stack, key, b"x" * len(content)))
    damaged = stack.in_process("audit")
    assert json.loads(damaged.stdout)["findings"] == {"object_damaged": [completion.request_id]}
    _sync(_replace(stack, key, content))


def test_ctrl_c_ends_a_command_cleanly(stack: Running) -> None:
    command = [*_VOXBUS, "publish", "-", "--wait", "--endpoints", str(stack.endpoints)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process:
        process.stdin.write("{bad\n")
        process.stdin.flush()
        assert process.stderr.readline().startswith("line 1: ")  # it is up, and waits for more
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
        assert "Traceback" not in process.stderr.read()


def test_the_example_chatbot_speaks_its_answers(stack: Running, tmp_path: Path) -> None:
    command = [sys.executable, str(_EXAMPLES / "chatbot.py"), "--no-play", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--endpoints", str(stack.endpoints)],
        input="你好\nwhere is my order?\nbye\nnever asked\n",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "您好，这里是云帆商城" in done.stdout
    assert "never asked" not in done.stdout
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["01.wav", "02.wav", "03.wav"]
    assert all(path.read_bytes()[:4] == b"RIFF" for path in tmp_path.iterdir())


# --- helpers ---------------------------------------------------------------------------------------


def _sync(work: Any) -> Any:
    return asyncio.run(work)


async def _ended(stack: Running, request_id: str) -> dict[str, Any]:
    """The terminal state of a request."""

    async def terminal() -> dict[str, Any] | None:
        found = json.loads(await last_status(stack.settings, request_id) or "{}")
        return found if found.get("state") in {"completed", "failed", "cancelled", "expired"} else None

    ended = await eventually(terminal, timeout_s=20, what=f"the end of {request_id}")
    assert ended is not None
    return ended


async def _letters(stack: Running) -> list[Letter]:
    async with topic_log(stack.settings.kafka, client_id="test") as log:
        return [letter async for letter in letters(log, Choice(topic=topics.REQUESTS))]


async def _letter_of(stack: Running, value: bytes) -> Letter | None:
    """The one dead letter of a message; its place is of no help, for requests without our key are re-keyed once."""
    digest = hashlib.sha256(value).hexdigest()
    found = [one for one in await _letters(stack) if one.reason.value_sha256 == digest]
    assert len(found) < 2
    return found[0] if found else None


async def _more_letters(stack: Running, than: int) -> list[Letter] | None:
    found = await _letters(stack)
    return found if len(found) > than else None


async def _spoken(stack: Running, text: str) -> Any:
    async with SpeechClient(stack.settings.kafka) as client:
        return await client.synthesize(text)


async def _replace(stack: Running, key: str, content: bytes | None) -> bytes:
    """Put other bytes in an object's place, or nothing; gives what lay there."""
    s3 = stack.settings.s3
    assert s3.secret_access_key is not None
    async with get_session().create_client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key.get_secret_value(),
    ) as client:
        try:
            answer = await client.get_object(Bucket=s3.bucket, Key=key)
            before = await answer["Body"].read()
        except client.exceptions.NoSuchKey:
            before = b""
        if content is None:
            await client.delete_object(Bucket=s3.bucket, Key=key)
        else:
            await client.put_object(Bucket=s3.bucket, Key=key, Body=content)
        return bytes(before)
