"""Whose a request is, what its id and Idempotency-Key stand for: with Redis, after it forgot, and without it."""

import asyncio
import json

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from producers.gateway.keys import new_key
from tests.gateway_world import world
from tests.integration.test_gateway_door import rendition, store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
AUDIO = {
    "url": "http://127.0.0.1:1/FIRST.wav", "format": "wav", "bytes": 1, "sha256": "0", "duration_s": 1,
    "sample_rate": 24_000,
}  # fmt: skip


def view(request_id, fingerprint="a" * 64):
    """A completed request as dedup tells it."""
    return {
        "request_id": request_id, "state": "completed", "percent": 100, "at": "2026-01-01T00:00:00Z",
        "fingerprint": fingerprint, "cached": False, "audio": AUDIO, "error": None,
    }  # fmt: skip


def by(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def door(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings) as one:
        yield one


@pytest.fixture
def nowhere(redis_settings, unused_tcp_port):
    """A Redis that is not there."""
    return redis_settings.model_copy(update={"url": SecretStr(f"redis://127.0.0.1:{unused_tcp_port}/0")})


@pytest.fixture
def people(tmp_path):
    (alice, line_a), (bob, line_b) = new_key("alice"), new_key("bob")
    (tmp_path / "keys").write_text(f"{line_a}\n{line_b}\n")
    return alice, bob, tmp_path / "keys"


async def forget_everything(redis_settings):
    async with Redis.from_url(redis_settings.url.get_secret_value()) as redis:
        names = [name async for name in redis.scan_iter(redis_settings.namespace + "*")]
        await redis.delete(*names)


async def test_ownership_does_not_need_redis(topics_ready, redis_settings, people):
    alice, bob, keys = people
    async with world(topics_ready, redis_settings, api_keys_file=keys) as door:
        made = await door.http.post("/v1/speech", json={"text": "a", "request_id": "order-1"}, headers=by(alice))
        assert (made.status_code, made.json()["request_id"]) == (202, "order-1")
        (request,) = await door.requested()
        assert request.request_id.startswith("order-1.k"), "the bus knows whose it is"
        door.views.requests[request.request_id] = view(request.request_id)
        door.views.requests["from-kafka"] = view("from-kafka")
        await forget_everything(redis_settings)
        await door.http.post("/v1/speech", json={"text": "b", "request_id": "order-1"}, headers=by(bob))
        await door.http.post("/v1/speech", json={"text": "b", "request_id": "from-kafka"}, headers=by(bob))
        for name in ("order-1", "from-kafka", request.request_id):
            for path in ("", "/events", "/audio"):
                async with door.http.stream("GET", f"/v1/requests/{name}{path}", headers=by(bob)) as answer:
                    if answer.status_code == 200 and path == "/events":
                        continue  # his own, which stays open
                    assert "FIRST" not in str(answer.headers) + (await answer.aread()).decode()
        mine = await door.http.get("/v1/requests/order-1", headers=by(alice))
        assert (mine.json()["request_id"], mine.json()["audio"]["url"]) == ("order-1", AUDIO["url"])
        cancelled = await door.http.delete(f"/v1/requests/{request.request_id}", headers=by(bob))
        assert cancelled.status_code == 404
        socket = door.url.replace("http", "ws") + "/v1/stream"
        async with connect(socket, additional_headers=by(bob)) as ws:
            await ws.send(json.dumps({"request_id": request.request_id, "offset": 0}))
            assert json.loads(await ws.recv())["status"] == 404


async def test_names_of_any_length_have_an_id(topics_ready, redis_settings, people):
    alice, _, keys = people
    async with world(topics_ready, redis_settings, api_keys_file=keys) as door:
        name = "n" * 128
        made = await door.http.post("/v1/speech", json={"text": "a", "request_id": name}, headers=by(alice))
        assert made.json()["request_id"] == name
        assert (await door.http.get(f"/v1/requests/{name}", headers=by(alice))).json()["request_id"] == name
        (request,) = await door.requested()
        assert len(request.request_id) <= 128


async def test_without_redis_another_body_is_never_answered_with_the_first_ones_audio(topics_ready, nowhere):
    async with world(topics_ready, nowhere) as door:
        key = {"Idempotency-Key": "k"}
        one = (await door.http.post("/v1/speech", json={"text": "hello"}, headers=key)).json()["request_id"]
        again = (await door.http.post("/v1/speech", json={"text": "hello"}, headers=key)).json()["request_id"]
        assert one == again
        door.views.requests[one] = view(one)
        other = await door.http.post("/v1/speech", json={"text": "else"}, headers={**key, "Prefer": "wait=3"})
        assert other.status_code in (202, 422, 503)
        assert other.json().get("request_id") != one


async def test_two_equal_posts_at_once_are_one_request(door):
    def post(text):
        return door.http.post("/v1/speech", json={"text": text}, headers={"Idempotency-Key": "race"})

    answers = await asyncio.gather(*(post("hello") for _ in range(8)))
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    mixed = await asyncio.gather(post("hello"), post("other"))
    assert [answer.status_code for answer in mixed] == [202, 422]


async def test_a_known_id_keeps_its_content(door, redis_settings):
    first = await door.http.post("/v1/speech", json={"text": "hello", "request_id": "X"})
    other = (await door.http.post("/v1/speech", json={"text": "other"})).json()["fingerprint"]
    door.views.requests["X"] = view("X", first.json()["fingerprint"])
    await store(redis_settings, rendition(other))
    for _ in range(2):  # remembered, then forgotten by Redis and known to dedup alone
        refused = await door.http.post("/v1/speech", json={"text": "other", "request_id": "X"})
        assert (refused.status_code, refused.json()["code"]) == (409, "request_conflict")
        assert (await door.http.get("/v1/requests/X")).json()["fingerprint"] == first.json()["fingerprint"]
        await forget_everything(redis_settings)
        await store(redis_settings, rendition(other))
    assert (await door.http.post("/v1/speech", json={"text": "hello", "request_id": "X"})).status_code == 202


async def test_who_waits_is_not_given_anothers_end(topics_ready, nowhere):
    async with world(topics_ready, nowhere) as door:
        waiting = asyncio.create_task(
            door.http.post("/v1/speech", json={"text": "b", "request_id": "Y"}, headers={"Prefer": "wait=9"})
        )
        await door.requested()
        door.views.requests["Y"] = view("Y")  # dedup had it from elsewhere a moment before
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (409, "request_conflict")


async def test_silence_of_redis_is_not_taken_for_absence(topics_ready, redis_settings, nowhere):
    async with world(topics_ready, redis_settings) as well, world(topics_ready, nowhere) as a:
        assert (await well.http.get("/v1/requests/nope")).status_code == 404
        made = (await well.http.post("/v1/speech", json={"text": "hello"})).json()["request_id"]
        unknown = await a.http.get(f"/v1/requests/{made}")
        assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "1")
        assert (await a.http.delete(f"/v1/requests/{made}")).status_code == 202, "the word goes behind the request"
