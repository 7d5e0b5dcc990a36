"""The queue road against real Kafka and Redis; what stands behind the bus is played by the tests."""

import asyncio
import json
import subprocess
import time
import uuid

import numpy as np
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from producers.gateway.keys import new_key
from schemas import topics
from schemas.audio import AudioChunk, TakeFinished
from schemas.base import utc_now
from schemas.codec import encode, encode_chunk
from schemas.codes import AudioFormat, ErrorCode, Priority
from schemas.completions import AudioInfo, CompletionData, EngineInfo, ErrorInfo, RequestCompleted
from schemas.jobs import SynthesisJob
from schemas.renditions import CachedRendition, rendition_cache_key
from schemas.requests import SpeechSpec
from tests.gateway_world import world
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
ENGINE = EngineInfo(name="espeak", revision="1", seed=7)


@pytest.fixture
async def door(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings) as one:
        yield one


def rendition(fingerprint, audio_format=AudioFormat.WAV, url="http://127.0.0.1:1/a.wav"):
    return CachedRendition(
        fingerprint=fingerprint,
        key="k",
        url=url,
        format=audio_format,
        bytes=10,
        sha256="0" * 64,
        duration_s=1,
        sample_rate=24_000,
        engine=ENGINE,
        stored_at=utc_now(),
    )


async def store(redis_settings, *renditions):
    async with Redis.from_url(redis_settings.url.get_secret_value()) as redis:
        for one in renditions:
            key = redis_settings.namespace + rendition_cache_key(one.fingerprint, one.format)
            await redis.set(key, one.model_dump_json())


def completion_of(request_id, status="completed", **fields):
    audio = None
    if status == "completed":
        audio = AudioInfo(
            url="http://127.0.0.1:1/a.wav", format="wav", bytes=1, sha256="0", duration_s=1, sample_rate=1
        )
    data = CompletionData(request_id=request_id, status=status, audio=audio, **fields)
    return RequestCompleted(type=f"speech.{status}", timestamp=utc_now(), data=data)


async def test_a_miss_is_accepted_and_on_the_bus(door):
    answer = await door.http.post("/v1/speech", json={"text": "hello", "format": "mp3"})
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == body["status_url"] == f"/v1/requests/{body['request_id']}"
    assert body["estimated_start_s"] >= 0
    (request,) = await door.requested()
    assert (request.request_id, request.text, request.format) == (body["request_id"], "hello", "mp3")
    status = await door.http.get(body["status_url"])
    assert (status.status_code, status.json()["state"]) == (200, "accepted"), "dedup does not know it yet"
    assert status.headers["retry-after"] == "1"


async def test_a_hit_is_answered_without_the_bus(door, redis_settings):
    fingerprint = (await door.http.post("/v1/speech", json={"text": "hello"})).json()["fingerprint"]
    await store(redis_settings, rendition(fingerprint))
    answer = await door.http.post("/v1/speech", json={"text": "  hello ", "metadata": {"a": 1}})
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert (data["status"], data["cached"], data["metadata"]) == ("completed", True, {"a": 1})
    polled = await door.http.get(f"/v1/requests/{data['request_id']}")
    assert (polled.json()["state"], polled.json()["audio"]["url"]) == ("completed", data["audio"]["url"])
    audio = await door.http.get(f"/v1/requests/{data['request_id']}/audio")
    assert (audio.status_code, audio.headers["location"]) == (302, data["audio"]["url"])
    assert len(await door.requested()) == 1, "only the first went over the bus"


async def test_a_hit_with_a_callback_goes_over_the_bus_as_well(door, redis_settings):
    fingerprint = (await door.http.post("/v1/speech", json={"text": "hello"})).json()["fingerprint"]
    await store(redis_settings, rendition(fingerprint))
    answer = await door.http.post("/v1/speech", json={"text": "hello", "callback_url": "https://a.example/x"})
    assert answer.status_code == 200
    assert len(await door.requested(2)) == 2


async def test_the_same_key_and_body_are_the_same_request(door):
    one, two = [
        await door.http.post("/v1/speech", json={"text": "hello"}, headers={"Idempotency-Key": "k1"}) for _ in range(2)
    ]
    assert one.json()["request_id"] == two.json()["request_id"]
    other = await door.http.post("/v1/speech", json={"text": "else"}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (422, "request_conflict")
    assert other.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b"{", 422, "invalid_request", "#"),
        (b'{"text": ""}', 422, "invalid_request", "#/text"),
        (b'{"text": "a", "txet": 1}', 422, "invalid_request", "#/txet"),
        (b'{"text": "a", "voice": "nobody"}', 422, "unsupported_voice", "#/voice"),
        (b'{"text": "a", "dialect": "klingon"}', 422, "unsupported_dialect", "#/dialect"),
        (b'{"text": "..."}', 422, "text_not_speakable", "#/text"),
        (b'{"text": "a", "callback_url": "file:///etc"}', 422, "invalid_request", "#/callback_url"),
        (b'{"text": "' + b"a" * 140_000 + b'"}', 413, "invalid_request", None),
    ],
)
async def test_what_is_wrong_is_named(door, body, status, code, pointer):
    answer = await door.http.post("/v1/speech", content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("errors" in answer.json()) == (pointer is not None)
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_unknown_things_are_problems_too(door):
    for method, path, status in [("GET", "/v1/requests/nope", 404), ("GET", "/x", 404), ("PUT", "/v1/speech", 405)]:
        answer = await door.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_waiting_brings_the_completion(door):
    async def wait(seconds):
        return await door.http.post("/v1/speech", json={"text": "hello"}, headers={"Prefer": f"wait={seconds}"})

    waiting = asyncio.create_task(wait(20))
    (request,) = await door.requested()
    message = encode(completion_of(request.request_id), source="test")
    await door.producer.deliver(topics.COMPLETED, message)
    answer = await waiting
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "completed")
    assert answer.headers["preference-applied"] == "wait=20"
    polled = await door.http.get(f"/v1/requests/{request.request_id}")
    assert polled.json()["state"] == "completed", "what was told is the answer, though dedup's view lags"
    assert (await wait(1)).status_code == 202, "too slow: go on by the status URL"


async def test_too_much_is_refused_with_the_time_to_wait(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings, rate_per_s=3, rate_burst=3) as door:
        answers = [await door.http.post("/v1/speech", json={"text": f"n{n}"}) for n in range(8)]
    assert {answer.status_code for answer in answers} == {202, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(
        int(answer.headers["retry-after"]) >= 1 and answer.json()["code"] == "rate_limited" for answer in refused
    )


async def test_bulk_is_refused_before_interactive(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings, max_queued_audio_s=10) as door:

        async def statuses():
            sent = [door.http.post("/v1/speech", json={"text": "a", "priority": p}) for p in ("bulk", "interactive")]
            return [answer.status_code for answer in await asyncio.gather(*sent)]

        door.views.in_flight = 3  # syntheses of 5 s each until one was heard

        async def bulk_only():
            assert await statuses() == [429, 202]
            return True

        await eventually(bulk_only)
        door.views.in_flight = 30

        async def nobody():
            assert await statuses() == [429, 429]
            return True

        await eventually(nobody)


async def test_each_key_sees_its_own_requests_only(topics_ready, redis_settings, tmp_path):
    (alice, line_a), (bob, line_b) = new_key("alice"), new_key("bob")
    keys = tmp_path / "keys"
    keys.write_text(f"{line_a}\n{line_b}\n")
    assert alice not in keys.read_text()
    async with world(topics_ready, redis_settings, api_keys_file=keys) as door:

        def by(key):
            return {"Authorization": f"Bearer {key}"}

        refused = await door.http.post("/v1/speech", json={"text": "a"})
        assert (refused.status_code, (await door.http.get("/v1/voices")).status_code) == (401, 401)
        assert (await door.http.post("/v1/speech", json={"text": "a"}, headers=by("vxb_wrong"))).status_code == 401
        made = await door.http.post("/v1/speech", json={"text": "a"}, headers=by(alice))
        chosen = await door.http.post("/v1/speech", json={"text": "a", "request_id": "mine"}, headers=by(alice))
        for url in (made.json()["status_url"], chosen.json()["status_url"]):
            assert url.rpartition("/")[2] in (made.json()["request_id"], "mine")
            assert (await door.http.get(url, headers=by(alice))).status_code == 200
            for path in (url, url + "/events", url + "/audio"):
                assert (await door.http.get(path, headers=by(bob))).status_code == 404
        bobs = await door.http.post("/v1/speech", json={"text": "b", "request_id": "mine"}, headers=by(bob))
        assert (bobs.status_code, bobs.json()["request_id"]) == (202, "mine"), "names are each owner's own"
        seen = [(await door.http.get("/v1/requests/mine", headers=by(key))).json() for key in (alice, bob)]
        assert [one["fingerprint"] for one in seen] == [one.json()["fingerprint"] for one in (chosen, bobs)]
        forged = made.json()["request_id"]
        taken = await door.http.post("/v1/speech", json={"text": "b", "request_id": forged}, headers=by(bob))
        assert taken.status_code == 409
        assert (await door.http.get("/")).status_code == 200, "the page itself asks for the key"
        socket = door.url.replace("http", "ws") + "/v1/stream"
        async with connect(socket, subprotocols=["voxbus.v1", "voxbus.key.wrong"]) as ws:
            await ws.send(json.dumps({"text": "a"}))
            assert json.loads(await ws.recv())["status"] == 401


async def test_without_redis_it_is_slower_and_never_wrong(topics_ready, redis_settings, unused_tcp_port, tmp_path):
    nowhere = redis_settings.model_copy(update={"url": SecretStr(f"redis://127.0.0.1:{unused_tcp_port}/0")})
    async with world(topics_ready, nowhere) as door:
        headers = {"Idempotency-Key": "k"}
        one, two = [await door.http.post("/v1/speech", json={"text": "hello"}, headers=headers) for _ in range(2)]
        assert one.status_code == two.status_code == 202
        assert one.json()["request_id"] == two.json()["request_id"]
        assert (await door.http.get(one.json()["status_url"])).json()["state"] == "accepted"
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    async with world(topics_ready, nowhere, api_keys_file=tmp_path / "keys") as door:
        headers = {"Authorization": f"Bearer {key}"}
        made = await door.http.post("/v1/speech", json={"text": "hello"}, headers=headers)
        assert (await door.http.get(made.json()["status_url"], headers=headers)).status_code == 200
        assert (await door.http.get("/v1/requests/whose", headers=headers)).status_code == 503


async def test_without_the_bus_it_says_so_quickly(kafka_settings, redis_settings, unused_tcp_port):
    away = kafka_settings.model_copy(update={"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"})
    from producers.gateway.app import gateway
    from producers.gateway.settings import GatewaySettings, Settings

    settings = Settings(kafka=away, redis=redis_settings, gateway=GatewaySettings(port=0))
    import httpx

    async with gateway(settings) as url, httpx.AsyncClient(base_url=url, timeout=10) as http:
        began = time.monotonic()
        answer = await http.post("/v1/speech", json={"text": "hello"})
        assert time.monotonic() - began < 2
        assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        async with connect(url.replace("http", "ws") + "/v1/stream") as ws:
            await ws.send(json.dumps({"text": "a"}))
            assert json.loads(await ws.recv())["code"] == "bus_unavailable"


async def speak_one(door, request, pcm, *, complete=True, take_id="take1", fingerprint, parts=3):
    """What a worker puts on the bus for one take."""
    size = len(pcm) // parts // 2 * 2
    chunks = [pcm[n * size : (n + 1) * size if n < parts - 1 else None] for n in range(parts)]
    for index, chunk in enumerate(chunks):
        message = encode_chunk(AudioChunk(fingerprint, "job", take_id, index, 24_000, chunk), source="test")
        await door.producer.deliver(topics.AUDIO, message)
    if complete:
        spec = SpeechSpec(text="x", voice="female1", language="en", dialect="en-us", seed=1)
        job = SynthesisJob(
            job_id="job",
            fingerprint=fingerprint,
            spec=spec,
            formats=(AudioFormat.WAV,),
            priority=Priority.INTERACTIVE,
            request_id=request.request_id,
            enqueued_at=utc_now(),
        )
        finished = TakeFinished(
            take_id=take_id,
            job=job,
            chunks=parts,
            samples=len(pcm) // 2,
            sample_rate=24_000,
            sha256="0" * 64,
            engine=ENGINE,
        )
        await door.producer.deliver(topics.AUDIO, encode(finished, source="test"))
    return chunks


def noise(seconds):
    return np.random.default_rng(1).integers(-3000, 3000, int(24_000 * seconds), dtype=np.int16).tobytes()


async def test_a_stream_is_heard_while_it_is_made_and_goes_on_after_a_break(door):
    pcm = noise(3)
    request_id = f"r-{uuid.uuid4().hex[:8]}"
    address = door.url.replace("http", "ws") + "/v1/stream"
    heard = b""
    async with connect(address) as ws:
        await ws.send(json.dumps({"text": "hello", "request_id": request_id}))
        (request,) = await door.requested()
        status = (await door.http.get(f"/v1/requests/{request_id}")).json()
        fingerprint = status["fingerprint"]
        await speak_one(door, request, pcm[: len(pcm) // 2], complete=False, fingerprint=fingerprint, parts=2)
        started = json.loads(await ws.recv())
        assert (started["event"], started["sample_rate"], started["cached"]) == ("started", 24_000, False)
        while len(heard) < 30_000:
            heard += await ws.recv()
    # The line broke; meanwhile the take goes on.
    second = encode_chunk(AudioChunk(fingerprint, "job", "take1", 2, 24_000, pcm[len(pcm) // 2 :]), source="test")
    await door.producer.deliver(topics.AUDIO, second)
    async with connect(address) as ws:
        await ws.send(json.dumps({"request_id": request_id, "offset": len(heard) // 2}))
        started = json.loads(await ws.recv())
        assert started["offset"] == len(heard) // 2
        while len(heard) < len(pcm):
            heard += await ws.recv()
        assert heard == pcm
        await door.producer.deliver(topics.AUDIO, encode(_finished(request, fingerprint, pcm, 3), source="test"))
        await door.producer.deliver(topics.COMPLETED, encode(completion_of(request_id), source="test"))
        end = json.loads(await ws.recv())
        assert (end["event"], end["data"]["status"], end["samples"]) == ("completed", "completed", len(pcm) // 2)


def _finished(request, fingerprint, pcm, chunks):
    job = SynthesisJob(
        job_id="job",
        fingerprint=fingerprint,
        spec=SpeechSpec(text="x", voice="female1", language="en", dialect="en-us", seed=1),
        formats=(AudioFormat.WAV,),
        priority=Priority.INTERACTIVE,
        request_id=request.request_id,
        enqueued_at=utc_now(),
    )
    return TakeFinished(
        take_id="take1",
        job=job,
        chunks=chunks,
        samples=len(pcm) // 2,
        sample_rate=24_000,
        sha256="0" * 64,
        engine=ENGINE,
    )


async def test_a_failed_request_says_why(door):
    async with connect(door.url.replace("http", "ws") + "/v1/stream") as ws:
        await ws.send(json.dumps({"text": "hello"}))
        (request,) = await door.requested()
        error = ErrorInfo(code=ErrorCode.ENGINE_CRASHED, message="it crashed")
        failed = completion_of(request.request_id, "failed", error=error)
        await door.producer.deliver(topics.COMPLETED, encode(failed, source="test"))
        said = json.loads(await ws.recv())
        assert (said["event"], said["code"]) == ("failed", "engine_crashed")


async def test_pages_of_other_sites_are_not_served(door):
    foreign = {"Origin": "https://elsewhere.example"}
    refused = await door.http.post("/v1/speech", json={"text": "a"}, headers=foreign)
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)
    assert (await door.http.post("/v1/speech", json={"text": "a"}, headers={"Origin": door.url})).status_code == 202
    with pytest.raises(InvalidStatus):
        await connect(door.url.replace("http", "ws") + "/v1/stream", origin="https://elsewhere.example")


async def test_cors_is_given_to_whom_it_was_promised(topics_ready, redis_settings):
    friend = {"Origin": "https://friend.example"}
    async with world(topics_ready, redis_settings, cors_origins=("https://friend.example",)) as door:
        answer = await door.http.post("/v1/speech", json={"text": "a"}, headers=friend)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, "https://friend.example")


async def test_curl_works_as_the_readme_says(door):
    command = ["curl", "-sS", "-i", f"{door.url}/v1/speech", "-H", "Content-Type: application/json"]
    command += ["-d", '{"text": "您好", "format": "mp3"}']
    answer = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("HTTP/1.1 202")
    assert "location: /v1/requests/" in answer.stdout.lower()
