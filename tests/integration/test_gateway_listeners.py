"""Listeners that come back, leave, say nothing or take nothing; several gateways; the bus away."""

import asyncio
import json
import socket

import httpx
import pytest
from aiokafka.errors import KafkaError
from pydantic import SecretStr
from websockets.asyncio.client import connect

from infra.kafka.clients import new_consumer, start_client
from producers.gateway.app import gateway
from producers.gateway.bus_door import BusDoor
from producers.gateway.keys import new_key
from producers.gateway.problems import ProblemError
from producers.gateway.settings import GatewaySettings, Settings
from schemas import topics
from schemas.codec import Message, event_type
from schemas.codes import AudioFormat
from schemas.requests import CancelRequested
from tests.gateway_files import file_of, noise, store_of_files
from tests.gateway_world import world
from tests.integration.test_gateway_door import rendition, speak_one, store
from tests.integration.test_gateway_ownership import view
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


@pytest.fixture
async def door(topics_ready, redis_settings):
    async with world(topics_ready, redis_settings) as one:
        yield one


def stream_of(door):
    return door.url.replace("http", "ws") + "/v1/stream"


async def listeners(door):
    return (await door.http.get("/v1/pipeline")).json()["gateway"]["listeners"]


async def stored_hello(door, redis_settings, url):
    fingerprint = (await door.http.post("/v1/speech", json={"text": "hello"})).json()["fingerprint"]
    await store(redis_settings, *(rendition(fingerprint, one, url) for one in (AudioFormat.WAV, AudioFormat.FLAC)))


async def test_a_hit_can_be_come_back_to_on_both_roads(topics_ready, redis_settings):
    pcm = noise(20)
    async with (
        store_of_files(a=file_of(pcm, AudioFormat.FLAC)) as files,
        world(topics_ready, redis_settings) as door,
        world(topics_ready, redis_settings) as elsewhere,
    ):
        await stored_hello(door, redis_settings, files.url + "/a")
        async with connect(stream_of(door)) as ws:
            await ws.send(json.dumps({"text": "hello"}))
            started, heard = json.loads(await ws.recv()), await ws.recv()
            ws.transport.abort()
        async with connect(stream_of(elsewhere)) as ws:
            await ws.send(json.dumps({"request_id": started["request_id"], "offset": len(heard) // 2}))
            assert json.loads(await ws.recv())["event"] == "started"
            while len(heard) < len(pcm):
                heard += await ws.recv()
        assert heard == pcm
        answer = await door.http.post("/v1/audio/speech", json={"input": "hello", "response_format": "pcm"})
        assert answer.content == pcm
        state = await elsewhere.http.get("/v1/requests/" + answer.headers["x-request-id"])
        assert (state.status_code, state.json()["state"]) == (200, "completed")


async def test_a_second_request_hears_a_running_take_from_its_first_chunk(door):
    pcm = noise(2)
    async with connect(stream_of(door)) as first, connect(stream_of(door)) as second:
        await first.send(json.dumps({"text": "hello", "request_id": "one"}))
        (request,) = await door.requested()
        fingerprint = (await door.http.get("/v1/requests/one")).json()["fingerprint"]
        await speak_one(door, request, pcm, complete=False, fingerprint=fingerprint)
        await first.recv()
        begun = await first.recv()
        await second.send(json.dumps({"text": "hello"}))
        started = json.loads(await second.recv())
        assert (started["event"], started["offset"]) == ("started", 0)
        for ws, before in ((first, begun), (second, b"")):
            heard = before
            while len(heard) < len(pcm):
                heard += await ws.recv()
            assert heard == pcm


async def test_a_listener_that_takes_nothing_slows_no_other(door):
    """300 s of audio: more than what the sockets between hold, so that the gateway has to wait for the one."""
    pcm = noise(300)
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        narrow.setblocking(False)
        host, port = door.url.removeprefix("http://").split(":")
        await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
        async with connect(stream_of(door), sock=narrow, max_queue=1) as slow, connect(stream_of(door)) as quick:
            await slow.send(json.dumps({"text": "hello", "request_id": "one"}))
            (request,) = await door.requested()
            await quick.send(json.dumps({"text": "hello"}))
            await door.requested(2)
            fingerprint = (await door.http.get("/v1/requests/one")).json()["fingerprint"]
            await speak_one(door, request, pcm, complete=False, fingerprint=fingerprint, parts=30)

            async def all_of(listener):
                heard = bytearray()
                while len(heard) < len(pcm):
                    message = await listener.recv()
                    heard += message if isinstance(message, bytes) else b""
                return bytes(heard)

            assert await asyncio.wait_for(all_of(quick), 20) == pcm
            assert await listeners(door) == 2, "the other is still there, and has not taken it all"
            assert await asyncio.wait_for(all_of(slow), 20) == pcm


async def test_a_stream_tells_its_id_before_there_is_audio_once_the_rate_is_known(door):
    async with connect(stream_of(door)) as first, connect(stream_of(door)) as second:
        await first.send(json.dumps({"text": "hello", "request_id": "one"}))
        (request,) = await door.requested()
        fingerprint = (await door.http.get("/v1/requests/one")).json()["fingerprint"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first.recv(), 0.3)
        await speak_one(door, request, noise(1), complete=False, fingerprint=fingerprint)
        assert json.loads(await first.recv())["event"] == "started"
        await second.send(json.dumps({"text": "something else"}))
        started = json.loads(await asyncio.wait_for(second.recv(), 5))
        assert (started["event"], started["sample_rate"], started["cached"]) == ("started", 24_000, False)
        state = await door.http.get(f"/v1/requests/{started['request_id']}")
        assert state.json()["state"] == "accepted", "its audio is not begun with"


@pytest.mark.parametrize(("method", "path"), [("GET", "/audio"), ("GET", "/events"), ("DELETE", "")])
async def test_following_and_cancelling_are_within_the_limits(topics_ready, redis_settings, method, path):
    async with world(topics_ready, redis_settings, rate_per_s=2, rate_burst=2) as door:
        made = (await door.http.post("/v1/speech", json={"text": "a"})).json()
        door.views.requests[made["request_id"]] = view(made["request_id"], made["fingerprint"])
        answers = [await door.http.request(method, made["status_url"] + path) for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused, [answer.status_code for answer in answers]
        assert all(answer.json()["code"] == "rate_limited" for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert (await door.http.get(made["status_url"])).status_code == 200, "asking where it is remains free"


async def test_those_who_say_nothing_or_may_not_hold_no_slot(topics_ready, redis_settings, tmp_path):
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    headers = {"Authorization": f"Bearer {key}"}
    async with world(topics_ready, redis_settings, api_keys_file=tmp_path / "keys", max_listeners=1) as door:
        silent = [await connect(stream_of(door)) for _ in range(3)]
        made = await door.http.post("/v1/speech", json={"text": "a"}, headers=headers)
        async with door.http.stream("GET", made.json()["status_url"] + "/events", headers=headers) as events:
            assert events.status_code == 200
            async with connect(stream_of(door), additional_headers=headers) as ws:
                await ws.send(json.dumps({"text": "a"}))
                assert json.loads(await ws.recv())["code"] == "too_many_listeners"
        for ws in silent:
            await ws.close()


async def test_who_leaves_before_the_first_audio_gives_the_slot_back(door):
    with pytest.raises(httpx.ReadTimeout):
        await door.http.post("/v1/audio/speech", json={"input": "fresh words"}, timeout=0.5)

    async def none():
        return await listeners(door) == 0

    await eventually(none, 5)


async def test_who_takes_nothing_is_let_go(topics_ready, redis_settings):
    async with (
        store_of_files(a=b"x" * 40_000_000) as files,
        world(topics_ready, redis_settings, send_timeout_s=0.5) as door,
    ):
        await stored_hello(door, redis_settings, files.url + "/a")
        host, port = door.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024)
        body = json.dumps({"input": "hello", "response_format": "wav"}).encode()
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        await reader.read(100)

        async def let_go():
            return await listeners(door) == 0

        await eventually(let_go, 10)
        writer.transport.abort()


async def cancels(kafka):
    consumer = new_consumer(kafka, topics.REQUESTS, group=None, client_id="test-cancels")
    await start_client(consumer, kafka)
    found = []
    try:
        for _ in range(4):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                kinds = [(event_type(record.headers), record.key) for record in records]
                found += [key for kind, key in kinds if kind == CancelRequested.ce_type]
    finally:
        await consumer.stop()
    return found


async def test_work_is_cancelled_only_when_nobody_follows_it(topics_ready, redis_settings):
    options = {"cancel_unheard": True, "unheard_grace_s": 0.3}
    async with (
        world(topics_ready, redis_settings, **options) as one,
        world(topics_ready, redis_settings, **options) as two,
    ):
        first, second = await connect(stream_of(one)), await connect(stream_of(two))
        await first.send(json.dumps({"text": "hello", "request_id": "R"}))
        await one.requested()
        await second.send(json.dumps({"request_id": "R", "offset": 0}))

        async def heard():
            return await listeners(two) == 1

        await eventually(heard)
        await first.close()
        assert await cancels(topics_ready) == [], "somebody listens at the other gateway"
        await second.close()
        third = await connect(stream_of(one))
        await third.send(json.dumps({"text": "hello", "request_id": "R"}))
        await one.requested(2)
        await third.close()
        with pytest.raises(httpx.ReadTimeout):
            await one.http.post("/v1/audio/speech", json={"input": "fresh words"}, timeout=0.7)

        async def both():
            return len(await cancels(topics_ready)) == 2

        await eventually(both)


async def test_limits_are_shared_by_gateways_and_counted_for_each_key(topics_ready, redis_settings, tmp_path):
    people = [new_key(name) for name in ("alice", "bob")]
    (tmp_path / "keys").write_text("\n".join(line for _, line in people))
    options = {"api_keys_file": tmp_path / "keys", "key_rate_per_s": 2, "rate_per_s": 100, "rate_burst": 100}
    async with (
        world(topics_ready, redis_settings, **options) as one,
        world(topics_ready, redis_settings, **options) as two,
    ):

        async def post(door, key):
            headers = {"Authorization": f"Bearer {key}"}
            return (await door.http.post("/v1/speech", json={"text": "a"}, headers=headers)).status_code

        (alice, _), (bob, _) = people
        alices = await asyncio.gather(*(post(door, alice) for door in (one, two) for _ in range(6)))
        assert alices.count(202) <= 2 + 4, "both gateways together, though some time may have passed"
        assert 429 in alices
        assert await post(two, bob) == 202, "another key is not limited by it"


async def test_hits_are_served_while_the_bus_is_away(topics_ready, redis_settings, unused_tcp_port):
    pcm = noise(2)
    async with store_of_files(a=file_of(pcm, AudioFormat.FLAC)) as files:
        async with world(topics_ready, redis_settings) as door:
            await stored_hello(door, redis_settings, files.url + "/a")
        away = topics_ready.model_copy(update={"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"})
        settings = Settings(kafka=away, redis=redis_settings, gateway=GatewaySettings(port=0))
        async with gateway(settings) as url, httpx.AsyncClient(base_url=url) as http:
            assert (await http.post("/v1/speech", json={"text": "hello"})).status_code == 200
            heard = await http.post("/v1/audio/speech", json={"input": "hello", "response_format": "pcm"})
            assert heard.content == pcm


@pytest.mark.parametrize("wait", [b"wait=\xb2", b"wait=1.5", b"wait=-1"])
async def test_a_preference_that_cannot_be_read_is_none(door, wait):
    answer = await door.http.post("/v1/speech", json={"text": "a"}, headers=[("Prefer", wait)])
    assert (answer.status_code, "preference-applied" in answer.headers) == (202, False)


async def test_the_end_of_an_event_stream_is_told_once(door):
    made = (await door.http.post("/v1/speech", json={"text": "a"})).json()
    door.views.requests[made["request_id"]] = view(made["request_id"], made["fingerprint"])

    async def after(last):
        return await door.http.get(made["status_url"] + "/events", headers={"Last-Event-ID": last})

    assert "100-06" in (await after("090-05")).text
    assert ((await after("100-06")).status_code, (await after("zzz")).status_code) == (204, 422)


async def test_without_the_bus_every_road_says_so_though_redis_hangs(kafka_settings, redis_settings, unused_tcp_port):
    async def silent(_reader, writer):
        held.append(writer)

    held = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    hanging = SecretStr(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    settings = Settings(
        kafka=kafka_settings.model_copy(update={"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"}),
        redis=redis_settings.model_copy(update={"url": hanging}),
        gateway=GatewaySettings(port=0),
    )
    async with gateway(settings) as url, httpx.AsyncClient(base_url=url, timeout=2) as http:
        plain = {"text": "a"}
        for path, body, headers in [
            ("/v1/speech", plain, {}),
            ("/v1/speech", plain, {"Prefer": "wait=9"}),
            ("/v1/audio/speech", {"input": "a"}, {}),
        ]:
            answer = await http.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
        async with connect(url.replace("http", "ws") + "/v1/stream") as ws, asyncio.timeout(2):
            await ws.send(json.dumps(plain))
            assert json.loads(await ws.recv())["code"] == "bus_unavailable"
    for writer in held:
        writer.close()
    server.close()


async def test_a_late_failure_on_the_old_producer_leaves_the_new_one():
    class Failing:
        async def deliver(self, _topic, _message):
            door._producer = new
            raise KafkaError

    door, new = BusDoor(timeout_s=0.1), object()
    door._producer = Failing()
    with pytest.raises(ProblemError):
        await door.publish("t", Message(None, b"", ()))
    assert door._producer is new
