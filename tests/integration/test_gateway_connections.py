"""Connections of the gateway: how many, how long, and that each is told in problem details why it is not served."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.gateway_world import world
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
_PROBLEM = "application/problem+json"


@pytest.fixture
async def door(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings) as one:
        yield one


@asynccontextmanager
async def line(url):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer_of(reader):
    """Status, headers and JSON body of a raw answer that ends with its connection."""
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, json.loads(body)


async def test_idle_connections_keep_nobody_out(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings, max_connections=5) as door:
        host, port = door.url.removeprefix("http://").split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(40)]
        for path in ("/healthz", "/v1/voices"):
            async with httpx.AsyncClient(base_url=door.url) as http:
                assert (await http.get(path)).status_code == 200

        async def few():
            return sum(not reader.at_eof() for reader, _ in idle) <= 5

        await eventually(few, what="the connections above the bound are closed")
        for _, writer in idle:
            writer.close()


async def test_when_all_are_busy_health_answers_and_the_rest_is_told_so(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings, max_connections=3) as door:
        made = (await door.http.post("/v1/speech", json={"text": "a"})).json()["status_url"]
        events = [httpx.AsyncClient(base_url=door.url, timeout=30) for _ in range(3)]
        streams = [http.stream("GET", made + "/events") for http in events]
        for stream in streams:
            assert (await stream.__aenter__()).status_code == 200
        async with httpx.AsyncClient(base_url=door.url) as http:
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await http.get(path)).status_code == 200
            refused = await http.get("/v1/voices")
            assert (refused.status_code, refused.headers["content-type"]) == (503, _PROBLEM)
            assert (refused.json()["code"], refused.headers["retry-after"]) == ("too_many_connections", "1")
        for stream, http in zip(streams, events, strict=True):
            await stream.__aexit__(None, None, None)
            await http.aclose()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/speech HTTP/1.1\r\nHost: x\r\n"])
async def test_who_does_not_ask_is_let_go(topics_ready, redis_settings, monkeypatch, sent):
    monkeypatch.setattr("producers.gateway.connections._HEAD_S", 0.3)
    async with world(topics_ready, redis_settings) as door, line(door.url) as (reader, writer):
        writer.write(sent)
        if not sent:
            assert await asyncio.wait_for(reader.read(), 5) == b""
            return
        status, headers, problem = await answer_of(reader)
        assert (status, headers["content-type"], problem["status"]) == (408, _PROBLEM, 408)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GARBAGE\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000, 431)],
)
async def test_what_is_no_request_is_a_problem(door, sent, status):
    async with line(door.url) as (reader, writer):
        writer.write(sent)
        told, headers, problem = await answer_of(reader)
        assert (told, headers["content-type"], headers["connection"], problem["code"]) == (
            status, _PROBLEM, "close", "invalid_request",
        )  # fmt: skip


async def test_a_body_nobody_wants_does_not_hold_its_connection(topics_ready, redis_settings, monkeypatch):
    monkeypatch.setattr("producers.gateway.connections._HEAD_S", 0.3)
    async with world(topics_ready, redis_settings) as door, line(door.url) as (reader, writer):
        writer.write(b"POST /v1/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        assert b"413" in await asyncio.wait_for(reader.readline(), 5)

        rest = asyncio.create_task(reader.read())

        async def closed():
            writer.write(b"a")
            return rest.done()

        await eventually(closed, 5)
        with suppress(ConnectionError):
            await rest


async def test_a_refused_handshake_is_a_problem(door):
    socket = door.url.replace("http", "ws")
    for path, origin, status in (("/v1/stream", "https://elsewhere.example", 403), ("/v1/other", None, 404)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(socket + path, origin=origin)
        response = refused.value.response
        assert (response.status_code, response.headers["content-type"]) == (status, _PROBLEM)
        assert json.loads(response.body)["status"] == status


@pytest.mark.parametrize(
    ("method", "headers", "words"),
    [
        ("GET", {"Sec-WebSocket-Version": "13"}, "Sec-WebSocket-Key"),
        ("GET", {"Sec-WebSocket-Key": "short", "Sec-WebSocket-Version": "13"}, "Sec-WebSocket-Key"),
        ("GET", {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "7"}, "Version"),
        ("POST", {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}, "GET"),
    ],
)
async def test_a_malformed_handshake_is_a_problem(door, method, headers, words):
    told = {"Host": "x", "Connection": "Upgrade", "Upgrade": "websocket", **headers}
    head = [f"{method} /v1/stream HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    async with line(door.url) as (reader, writer):
        writer.write("\r\n".join(head).encode())
        status, headers, problem = await answer_of(reader)
    assert (status, headers["content-type"], problem["code"]) == (400, _PROBLEM, "invalid_request")
    assert words in problem["detail"]


async def test_a_parameter_at_fault_is_named(door):
    refused = await door.http.get("/v1/requests/a%20b")
    assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, "request_id")


async def test_a_refused_preflight_is_a_problem(topics_ready, redis_settings):
    asked = {"Access-Control-Request-Method": "POST"}
    async with world(topics_ready, redis_settings, cors_origins=("https://friend.example",)) as door:
        refused = await door.http.options("/v1/speech", headers={**asked, "Origin": "https://evil.example"})
        assert (refused.status_code, refused.headers["content-type"]) == (400, _PROBLEM)
        assert "access-control-allow-origin" not in refused.headers
        granted = await door.http.options("/v1/speech", headers={**asked, "Origin": "https://friend.example"})
        assert (granted.status_code, granted.headers["access-control-allow-origin"]) == (200, "https://friend.example")


async def test_not_ready_is_a_problem_with_a_time(kafka_settings, redis_settings, unused_tcp_port):
    away = kafka_settings.model_copy(update={"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"})
    from producers.gateway.app import gateway
    from producers.gateway.settings import GatewaySettings, Settings

    settings = Settings(kafka=away, redis=redis_settings, gateway=GatewaySettings(port=0))
    async with gateway(settings) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.headers["content-type"]) == (503, _PROBLEM)
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["ready"] is False
        assert "bus" in answer.json()["waiting_for"]


async def test_a_stream_says_what_is_too_large_and_when_to_come_back(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings, rate_per_s=3, rate_burst=3) as door:
        address = door.url.replace("http", "ws") + "/v1/stream"
        async with connect(address) as socket:
            await socket.send("x" * 200_000)
            assert json.loads(await socket.recv())["status"] == 413

        async def limited():
            async with connect(address) as socket:
                for _ in range(6):
                    await door.http.post("/v1/speech", json={"text": "a"})
                await socket.send(json.dumps({"text": "a"}))
                try:
                    told = json.loads(await asyncio.wait_for(socket.recv(), 1))
                except TimeoutError:
                    return False
            assert (told["status"], told["code"]) == (429, "rate_limited")
            return told["retry_after_s"] >= 1

        await eventually(limited)


async def test_speech_is_not_compressed_again(door):
    async with connect(door.url.replace("http", "ws") + "/v1/stream", compression="deflate") as socket:
        assert socket.protocol.extensions == []
