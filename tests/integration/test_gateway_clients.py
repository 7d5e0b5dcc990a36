"""The gateway of a whole embedded stack, as real clients meet it: openai, websockets, curl, schemathesis, a browser."""

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import openai
import pytest
import schemathesis
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from playwright.async_api import async_playwright
from redis.asyncio import Redis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from websockets.asyncio.client import connect

from infra.embedded.endpoints import load
from infra.settings import RedisSettings
from producers.gateway.keys import ApiKey, KeyRing, new_key
from tests.environment import environment
from tests.gateway_stack import VOXBUS, gateway_process, running_stack
from tests.waiting import eventually

_QUICKLY = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
load_all_checks()
_CONFORMITY = [
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running stack with espeak, whose sound is real speech and quickly made."""
    with running_stack(tmp_path_factory.mktemp("gateway-stack"), "--engine", "espeak", "--slots", "1") as folder:
        yield folder


@pytest.fixture(scope="module")
def url(data: Path) -> str:
    return str(json.loads((data / "endpoints.json").read_text())["gateway"])


@pytest.fixture
async def http(url):
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


def fresh(words: str = "Hello from the test") -> str:
    return f"{words}, number {uuid.uuid4().int % 10**9}."


def seconds(audio: bytes) -> float:
    """Length of a file, read block by block: a streamed one does not know its own length."""
    frames = 0
    with soundfile.SoundFile(io.BytesIO(audio)) as source:
        # libsndfile stumbles over the end of a FLAC of unknown length, after it has read all of it.
        with suppress(soundfile.LibsndfileError):
            for block in source.blocks(1_024):
                frames += len(block)
        return frames / source.samplerate


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "flac", "wav"])
def test_the_openai_package_speaks_every_format(url, audio_format):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    wanted = {"model": "tts-1", "voice": "alloy", "input": fresh(), "response_format": audio_format}
    made = client.audio.speech.create(**wanted).content
    again = client.audio.speech.create(**wanted).content
    assert 1.5 < seconds(made) < 10
    assert abs(seconds(made) - seconds(again)) < 0.3, "live and stored are the same speech"


def test_the_openai_package_streams(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    speech = client.audio.speech.with_streaming_response
    text = fresh("A text of several sentences. It goes on for a while. And then a little more")
    with speech.create(model="voxbus", voice="female1", input=text, response_format="pcm") as answer:
        blocks = list(answer.iter_bytes(4_096))
    assert len(blocks) > 3


async def test_the_openai_package_works_async_and_names_what_is_wrong(url):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        made = await client.audio.speech.create(model="voxbus", voice="female1", input=fresh(), response_format="wav")
        assert seconds(made.content) > 1
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await client.audio.speech.create(model="voxbus", voice="nobody", input="a")
        assert refused.value.body["code"] == "unsupported_voice"


async def spoken(url, request, protocols=None):
    """Events and PCM of one stream."""
    events, pcm = [], b""
    async with connect(url.replace("http", "ws") + "/v1/stream") as socket:
        await socket.send(json.dumps(request))
        async for message in socket:
            if isinstance(message, bytes):
                pcm += message
            else:
                events.append(json.loads(message))
    return events, pcm


async def test_a_stream_and_its_repeat_are_the_same_sound(url):
    request = {"text": fresh("This is a stream. It has some sentences"), "format": "mp3"}
    first, made = await spoken(url, request)
    assert [event["event"] for event in first] == ["started", "completed"]
    assert (first[0]["cached"], first[1]["data"]["status"]) == (False, "completed")
    assert first[1]["samples"] == len(made) // 2 > 20_000
    again, stored = await spoken(url, request)
    assert (again[0]["cached"], again[1]["data"]["cached"]) == (True, True)
    assert stored == made
    late, rest = await spoken(url, {"request_id": first[0]["request_id"], "offset": 10_000})
    assert late[0]["offset"] == 10_000
    assert rest == made[20_000:]


async def test_two_listeners_share_one_synthesis(data, url, http):
    async def misses():
        # Asked of dedup itself: the gateway's picture of it is a moment old.
        stats = json.loads((data / "endpoints.json").read_text())["dedup_web"].rstrip("/") + "/stats/"
        return (await http.get(stats)).json()["misses"]

    before = await misses()
    request = {"text": fresh("Two listeners hear this")}
    (_, one), (_, two) = await asyncio.gather(spoken(url, request), spoken(url, request))
    assert one == two
    assert await misses() == before + 1


async def test_a_request_is_followed_to_its_end_and_fetched(http):
    made = await http.post("/v1/speech", json={"text": fresh(), "format": "opus"})
    states = []
    async with http.stream("GET", made.json()["status_url"] + "/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line.removeprefix("data: "))["state"])
    assert states[-1] == "completed"
    headers = {"Last-Event-ID": "090-05"}
    again = await http.get(made.json()["status_url"] + "/events", headers=headers)
    assert again.text.count("event: status") == 1, "only what was not seen yet"
    audio = await http.get(made.json()["status_url"] + "/audio", follow_redirects=True)
    assert seconds(audio.content) > 1


@asynccontextmanager
async def no_bus(data):
    """The broker of the stack stands still while the block runs."""
    ps = await asyncio.to_thread(
        subprocess.run, [*VOXBUS, "ps", "--json", "--data-dir", str(data)],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    broker = next(int(row["pid"]) for row in json.loads(ps.stdout)["children"] if row["stage"] == "tansu")
    os.kill(broker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker, signal.SIGCONT)


async def test_the_bus_goes_and_comes_back(data, http):
    async with no_bus(data):
        began = time.monotonic()
        answer = await http.post("/v1/speech", json={"text": fresh()})
        assert (answer.status_code, time.monotonic() - began < 2) == (503, True)
        assert int(answer.headers["retry-after"]) >= 1
        assert (await http.get("/")).status_code == 200

    async def served():
        return (await http.post("/v1/speech", json={"text": fresh()})).status_code == 202

    await eventually(served, 40)

    async def heard():
        answer = await http.post("/v1/speech", json={"text": fresh()}, headers={"Prefer": "wait=20"})
        return answer.status_code == 200

    await eventually(heard, 60)


async def test_no_text_no_callback_and_no_key_is_in_the_log(data, tmp_path):
    """Of a whole process at its most talkative, whatever goes wrong."""
    word, path = f"Word{uuid.uuid4().hex}", f"path{uuid.uuid4().hex}"
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    text = {"text": f"Say {word} and no more.", "callback_url": f"http://127.0.0.1:1/{path}?token={path}"}
    log, told = tmp_path / "gateway.log", []
    redis_url = load(data / "endpoints.json").redis
    async with gateway_process(data, log, tmp_path / "keys") as http, Redis.from_url(redis_url) as redis:

        async def post(body, presented=key):
            content = body if isinstance(body, str) else json.dumps(body)
            headers = {"Authorization": f"Bearer {presented}"}
            answer = await http.post("/v1/speech", content=content, headers=headers)
            told.append(answer.status_code)
            return answer

        made = await post(text)
        await post(text, f"{key}x")
        await post({**text, "voice": word})
        await post(json.dumps(text)[:-1])
        await post({**text, "metadata": {"a": "x" * 200_000}})
        for name in (made.json()["request_id"], word):
            answer = await http.get(f"/v1/requests/{name}", headers={"Authorization": f"Bearer {key}"})
            told.append(answer.status_code)
        # What only a defect, or somebody else's hand in Redis, brings about.
        broken = KeyRing((ApiKey(**json.loads(line)),)).id_of("alice", "broken")
        await redis.set(f"{RedisSettings().namespace}content:{broken}", b"\xff")
        await post({**text, "request_id": "broken"})
        address = str(http.base_url).replace("http", "ws", 1).rstrip("/") + "/v1/stream"
        async with connect(address, subprotocols=["voxbus.v1", f"voxbus.key.{key}"]) as socket:
            await socket.send(json.dumps({**text, "format": word}))
            told.append(json.loads(await socket.recv())["status"])
        async with no_bus(data):
            await post({**text, "text": f"Nobody hears {word}."})
    assert told == [202, 401, 422, 422, 413, 200, 404, 500, 422, 503]
    lines = log.read_text().splitlines()
    assert len(lines) >= 4
    said = {json.loads(one)["event"] for one in lines}
    assert {"starting", "listening", "bus reached", "not handled"} <= said, said
    assert [one for one in lines if any(secret in one for secret in (word, path, key))] == []


@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_sent_is_answered_as_documented(url, mode):
    """Good and bad input alike: a documented status, type, headers and schema; bad input refused, and no failure."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    answered = {}

    def one(case):
        answer = case.call(timeout=20, allow_redirects=False)
        answered.setdefault(f"{case.method} {case.path}", set()).add(answer.status_code)
        assert answer.status_code < 500, (case.method, case.path, answer.status_code)
        case.validate_response(answer, checks=CHECKS.get_by_names(_CONFORMITY))

    made = httpx.post(f"{url}/v1/speech", json={"text": fresh()}, headers={"Prefer": "wait=30"}, timeout=40).json()
    known = {"request_id": made["data"]["request_id"]}
    for operation in (found.ok() for found in schema.get_all_operations()):
        with suppress(Unsatisfiable):  # nothing can be wrong with what has no parameter
            _QUICKLY(given(case=operation.as_strategy(mode))(one))()
        if mode is GenerationMode.POSITIVE and "{request_id}" in operation.path:
            _QUICKLY(given(case=operation.as_strategy(mode, path_parameters=known))(one))()
    if mode is GenerationMode.POSITIVE:
        assert len(answered) == len(list(schema.get_all_operations()))
        assert [302 in statuses for name, statuses in answered.items() if name.endswith("/audio")] == [True]
    else:
        assert len(answered) == 6, "those with a parameter or a body"
        assert all(400 <= status < 500 for statuses in answered.values() for status in statuses)


@pytest.fixture
def chromium() -> str:
    """Where it is. A contributor's machine may have none; CI may not."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    message = "no Chromium on the PATH for the console's test: apt-get install chromium"
    if os.environ.get("CI") == "true" or os.environ.get("VOXBUS_TEST_REQUIRE_BROWSER") == "1":
        pytest.fail(message)
    pytest.skip(message)


async def test_the_console_speaks_in_a_browser(url, chromium, tmp_path):
    pictures = Path(os.environ.get("VOXBUS_SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        page = await browser.new_page(viewport={"width": 1180, "height": 860})
        errors: list[str] = []
        outside: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda sent: None if sent.url.startswith((url, "data:")) else outside.append(sent.url))
        await page.goto(url)
        await page.wait_for_selector("#dot.good", timeout=20_000)
        # By keyboard alone: the text has the focus, Ctrl+Enter speaks.
        await page.keyboard.press("Control+A")
        text = fresh("Spoken while it is being made")
        await page.keyboard.type(text)
        await page.keyboard.press("Control+Enter")
        await page.wait_for_selector("td.state-completed", timeout=30_000)
        assert await page.evaluate("player.length") > 1, "the audio came over the WebSocket"
        assert await page.evaluate("player.peaks.length") > 50
        assert await page.locator("#stages li.done").count() == 7
        # One that is only queued, one that is refused, and the first again: each row has its own bar.
        await page.fill("#text", fresh("Only queued"))
        await page.click("#queue")
        await page.locator("td.state-completed").nth(1).wait_for(timeout=30_000)
        await page.fill("#text", "...")
        await page.focus("#rows a")
        await page.evaluate("queue()")
        await page.wait_for_selector("td.state-failed", timeout=10_000)
        assert await page.evaluate("document.activeElement.matches('#rows a')"), "the keyboard stays where it was"
        await page.fill("#text", text)
        await page.keyboard.press("Control+Enter")
        await page.locator("td.state-completed").nth(2).wait_for(timeout=30_000)
        bars = page.locator("#rows .bar")
        labels = [await bars.nth(number).get_attribute("aria-label") for number in range(await bars.count())]
        whole = "stage 7 of 7, completed"
        assert labels == [whole, "failed at stage 1 of 7, accepted", whole, whole]
        assert await page.locator("#rows .bar i.done").count() == 21
        assert await page.locator("#rows .bar.failed i.active").count() == 1
        await page.click("#tab-kafka")
        assert "tts.requests" in await page.inner_text("#code")
        await page.screenshot(path=pictures / "console.png", full_page=True)
        await page.emulate_media(color_scheme="dark")
        await page.set_viewport_size({"width": 390, "height": 844})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone"
        await page.screenshot(path=pictures / "console-phone.png", full_page=True)
        assert (errors, outside) == ([], [])
        await browser.close()
