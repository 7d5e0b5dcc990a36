"""What takes time, against an engine whose time is known: tones at four times the speed of speech, on two lanes.

Cancelling, from any gateway, leaving, estimates, and who is refused first when much is queued.
"""

import asyncio
import json
import time
import uuid
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from infra.embedded.endpoints import as_environment, kafka_settings, load
from infra.settings import RedisSettings
from producers.gateway.app import gateway
from producers.gateway.settings import GatewaySettings, Settings, SpokenSettings
from tests.gateway_stack import running_stack
from tests.gateway_world import until_ready
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
_SPEED, _LANES, _BOUND_S = 4.0, 2, 60.0  # audio seconds a second, all lanes together; bulk's bound
_SENTENCE_S = 3.8  # of tones
_ENDS = ("completed", "failed", "cancelled", "expired")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    settings = {
        # Jobs of several partitions overtake one another, which would leave the estimate to chance.
        "VOXBUS_KAFKA__PARTITIONS": "1",
        "VOXBUS_SYNTH__TONE__REALTIME_FACTOR": str(1 / _SPEED),
        "VOXBUS_SYNTH__TONE__LANES": str(_LANES),
        "VOXBUS_GATEWAY__SCRAPE_EVERY_S": "0.1",
        "VOXBUS_GATEWAY__MAX_QUEUED_AUDIO_S": str(_BOUND_S),
    }
    with running_stack(tmp_path_factory.mktemp("paced"), "--engine", "tone", "--slots", "1", **settings) as data:
        yield load(data / "endpoints.json")


@pytest.fixture
async def http(stack):
    async with httpx.AsyncClient(base_url=stack.gateway, timeout=60) as client:
        await eventually(lambda: lanes_busy(stack, 0), 30, "nothing is left of the test before")
        yield client


@pytest.fixture
async def replica(stack):
    """A second gateway, which also cancels what nobody hears any more."""
    settings = Settings(
        kafka=kafka_settings(as_environment(stack)),
        redis=RedisSettings(url=stack.redis),
        synth=SpokenSettings(engine="tone"),
        gateway=GatewaySettings(port=0, dedup_web=stack.dedup_web, cancel_unheard=True, unheard_grace_s=0.1),
    )
    async with gateway(settings) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        await until_ready(client)
        yield client


def text_of(seconds):
    """Fresh words that last about so long."""
    sentence = "This is one more sentence of a long text, spoken"
    return f"{sentence}. " * max(1, round(seconds / _SENTENCE_S)) + uuid.uuid4().hex[:6]


async def post(http, text, **fields):
    answer = await http.post("/v1/speech", json={"text": text, **fields})
    return answer.raise_for_status().json()


async def lanes_busy(stack, count):
    """Whether the worker itself says so."""
    async with httpx.AsyncClient(base_url=stack.health["synth"]) as http:
        families = text_string_to_metric_families((await http.get("/metrics")).text)
    busy = [sample.value for one in families for sample in one.samples if sample.name == "voxbus_synth_lanes_busy"]
    return sum(busy) == count


async def queue(http):
    return (await http.get("/v1/pipeline")).json()["queue"]


async def misses(http):
    return (await http.get("/v1/pipeline")).json()["dedup"]["misses"]


async def is_in(http, made, *states):
    state = (await http.get(made["status_url"])).json()["state"]
    return state in states and state


@pytest.mark.parametrize("by", ["the gateway that accepted it", "another gateway"])
async def test_a_cancelled_synthesis_frees_its_lane_within_a_second(stack, http, replica, by):
    made = await post(http, text_of(60))
    await eventually(lambda: is_in(http, made, "synthesizing"), 20)
    assert await lanes_busy(stack, 1)
    door = replica if by == "another gateway" else http
    cancelled = await door.delete(made["status_url"])
    assert (cancelled.status_code, cancelled.headers["location"]) == (202, made["status_url"])
    await eventually(lambda: lanes_busy(stack, 0), 1.0, "the lane is free")
    for seen_from in (http, replica):
        assert await eventually(lambda seen=seen_from: is_in(seen, made, *_ENDS), 5) == "cancelled"
    again = await door.delete(made["status_url"])
    assert (again.status_code, again.json()["state"]) == (200, "cancelled"), "repeating it is harmless"


async def test_a_cancel_leaves_the_synthesis_to_those_who_wait_for_it_too(stack, http):
    before, text = await misses(http), text_of(16)
    one, two = [await post(http, text) for _ in range(2)]
    for made in (one, two):
        await eventually(lambda made=made: is_in(http, made, "synthesizing"), 20)
    await http.delete(one["status_url"])
    assert await eventually(lambda: is_in(http, one, *_ENDS), 5) == "cancelled"
    assert await lanes_busy(stack, 1), "the lane still speaks, for the other"
    assert await eventually(lambda: is_in(http, two, *_ENDS), 20) == "completed"
    status = (await http.get(two["status_url"])).json()
    assert (one["fingerprint"], status["cached"]) == (two["fingerprint"], False)
    assert (await http.get(status["audio"]["url"])).status_code == 200
    await eventually(lambda: same(misses(http), before + 1), 5, "one synthesis for both")


async def same(asked, value):
    return await asked == value


@asynccontextmanager
async def heard_by_socket(replica, text):
    address = str(replica.base_url).replace("http", "ws", 1).rstrip("/") + "/v1/stream"
    async with connect(address) as socket:
        await socket.send(json.dumps({"text": text}))
        started = json.loads(await socket.recv())
        assert (started["event"], len(await socket.recv()) > 0) == ("started", True)
        yield started["request_id"]


@asynccontextmanager
async def heard_by_file(replica, text):
    wanted = {"input": text, "response_format": "wav"}
    async with replica.stream("POST", "/v1/audio/speech", json=wanted) as answer:
        assert (answer.status_code, len(await anext(answer.aiter_raw())) > 0) == (200, True)
        yield answer.headers["x-request-id"]


@pytest.mark.parametrize("heard", [heard_by_socket, heard_by_file])
async def test_work_whose_only_listener_left_is_cancelled_when_the_setting_says_so(stack, replica, http, heard):
    async with heard(replica, text_of(60)) as request_id:
        made = {"status_url": f"/v1/requests/{request_id}"}
        assert await is_in(http, made, "synthesizing")
    assert await eventually(lambda: is_in(http, made, *_ENDS), 5) == "cancelled"
    await eventually(lambda: lanes_busy(stack, 0), 5)


async def test_work_of_others_goes_on_when_a_listener_left(stack, replica, http):
    text = text_of(16)
    async with heard_by_socket(replica, text) as request_id:
        other = await post(http, text)
        await eventually(lambda: is_in(http, other, "synthesizing"), 5)
    left = {"status_url": f"/v1/requests/{request_id}"}
    assert await eventually(lambda: is_in(http, left, *_ENDS), 5) == "cancelled"
    assert await lanes_busy(stack, 1)
    assert await eventually(lambda: is_in(http, other, *_ENDS), 20) == "completed"


async def estimated_and_real(http):
    """Seconds until the last of a filled queue starts: as promised by its 202, and as it was."""
    filling = [await post(http, text_of(4)) for _ in range(6)]

    async def speed_is_known():
        # Until a second was spoken while jobs wait, it is that of single short ones, whose beginnings count as well.
        return (await queue(http))["speed"] == pytest.approx(_SPEED, rel=0.3)

    await eventually(speed_is_known, 10)
    began = time.monotonic()
    last = await post(http, text_of(4))
    estimate_s = last["estimated_start_s"]
    await eventually(lambda: is_in(http, last, "synthesizing"), 30)
    real_s = time.monotonic() - began
    await asyncio.gather(*(http.delete(one["status_url"]) for one in (*filling, last)))
    await eventually(lambda: is_in(http, last, *_ENDS), 20)
    return estimate_s, real_s


async def test_the_estimate_meets_the_real_start(stack, http):
    """Within a quarter of it and half a second: lengths are guessed by the text.

    Of three the one in the middle counts: a shared machine may stand still for seconds, which no estimate foresees.
    """
    measured = []
    for _ in range(3):
        measured.append(await estimated_and_real(http))
        await eventually(lambda: lanes_busy(stack, 0), 30)
    assert min(estimate_s for estimate_s, _ in measured) > 2, "they were behind others"
    off = sorted(abs(estimate_s - real_s) / (0.25 * real_s + 0.5) for estimate_s, real_s in measured)
    assert off[1] <= 1, measured


async def test_bulk_is_refused_before_interactive(stack, http):
    made = [await post(http, text_of(30)) for _ in range(3)]  # 90 s: above the bound of bulk, below the 120 s of others

    async def much_is_queued():
        return (await queue(http))["audio_s"] > 1.1 * _BOUND_S

    await eventually(much_is_queued, 10)
    bulk = await http.post("/v1/speech", json={"text": text_of(1), "priority": "bulk"})
    assert (bulk.status_code, bulk.json()["code"]) == (429, "queue_full")
    assert 1 <= int(bulk.headers["retry-after"]) <= 40, "about until so much less is queued"
    interactive = await http.post("/v1/speech", json={"text": text_of(1)})
    assert interactive.status_code == 202
    await asyncio.gather(*(http.delete(one["status_url"]) for one in (*made, interactive.json())))

    async def taken_again():
        return (await http.post("/v1/speech", json={"text": text_of(1), "priority": "bulk"})).status_code == 202

    await eventually(taken_again, 20)
