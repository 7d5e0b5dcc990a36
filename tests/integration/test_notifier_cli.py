"""`voxbus webhooks` on a real bus."""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta

from aiohttp import web
from click.testing import CliRunner, Result

from infra.errors import UserError
from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings
from notifier.bus_log import read_back
from notifier.cli import webhooks
from notifier.history import Choice, last_attempts
from notifier.signing import webhook_id
from schemas import topics
from schemas.base import utc_now
from schemas.codec import encode
from schemas.deliveries import DeliveryAttempted, DeliveryState
from tests.environment import variables
from tests.notifier_world import SECRET, attempts_of, notifying, publish_completions, receiving, settings_for
from tests.waiting import eventually


async def invoke(environment: Mapping[str, str], *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, webhooks, list(arguments), env=environment)


async def test_list_show_and_replay(topics_ready: KafkaSettings) -> None:
    broken = True

    async def answer(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=410 if broken else 204)

    async def ended() -> list[DeliveryState]:
        return [event.state for event in await attempts_of(topics_ready)]

    bus = variables(kafka=topics_ready)
    async with receiving(answer) as receiver, notifying(settings_for(topics_ready)):
        await publish_completions(topics_ready, ["r-1", "r-2"], receiver.url)
        await publish_completions(topics_ready, ["r-quiet"], None)
        await eventually(lambda: _both(ended, DeliveryState.DEAD_LETTERED))

        listed = await invoke(bus, "list", "--state", "dead_lettered", "--json")
        assert {json.loads(line)["request_id"] for line in listed.stdout.splitlines()} == {"r-1", "r-2"}
        assert "410" in (await invoke(bus, "show", "r-1")).stdout

        broken = False
        assert json.loads((await invoke(bus, "replay", "r-1")).stdout) == {"replayed": 1}
        await eventually(lambda: receiver.accepted == {webhook_id("r-1"): 1})
        endpoint = receiver.url.removeprefix("http://").removesuffix("/hook")
        chosen = await invoke(bus, "replay", "--endpoint", endpoint, "--state", "dead_lettered")
        assert json.loads(chosen.stdout) == {"replayed": 1}
        await eventually(lambda: set(receiver.accepted) == {webhook_id("r-1"), webhook_id("r-2")})
        missing = await invoke(bus, "replay", "r-quiet", "r-unknown")
    assert isinstance(missing.exception, UserError)
    assert "r-quiet, r-unknown" in str(missing.exception)


async def test_what_is_still_retrying_is_left_alone(topics_ready: KafkaSettings) -> None:
    async def broken(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=500)

    async def tried() -> bool:
        return len(await attempts_of(topics_ready)) == 1

    bus = variables(kafka=topics_ready)
    async with receiving(broken) as receiver, notifying(settings_for(topics_ready, retry_delays_s=(0.0, 600.0))):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(tried)
        named = await invoke(bus, "replay", "r-1")
        endpoint = receiver.url.removeprefix("http://").removesuffix("/hook")
        chosen = await invoke(bus, "replay", "--endpoint", endpoint)
        shown = (await invoke(bus, "show", "r-1")).stdout
    (event,) = await attempts_of(topics_ready)
    assert event.next_attempt_at is not None
    assert event.next_attempt_at - event.at >= timedelta(seconds=600)
    assert event.next_attempt_at.isoformat(timespec="seconds") in shown.replace("\n", "")
    assert json.loads(named.stdout) == json.loads(chosen.stdout) == {"replayed": 0, "still_retrying": 1}
    assert "still retrying, the next attempt comes by itself: r-1" in str(named.exception)
    assert chosen.exit_code == 0
    assert receiver.attempts.total() == 1
    assert (await invoke(bus, "replay", "--state", "retrying")).exit_code == 2


async def test_the_newest_are_listed_without_reading_all(topics_ready: KafkaSettings) -> None:
    """Backwards, page by page, over all partitions, to the same rows as a reading of the whole log."""
    began = utc_now()
    events = [
        DeliveryAttempted(
            request_id=f"r-{number % 40}",
            webhook_id=webhook_id(f"r-{number % 40}"),
            attempt=1 + number // 40,
            state=DeliveryState.RETRYING if number % 3 else DeliveryState.DELIVERED,
            at=began + timedelta(milliseconds=number),
            host="hooks.example.com:443",
        )
        for number in range(120)
    ]
    async with bus_producer(topics_ready, client_id="test") as producer:
        await producer.deliver(topics.DELIVERIES, *(encode(event, source="test") for event in events))
    pages = [page async for page in read_back(topics_ready, topics.DELIVERIES, step=7)]
    read = [record.offset for page in pages for record in page.records if record.partition == 0]
    assert read == sorted(read, reverse=True)
    assert sum(len(page.records) for page in pages) == len(events)
    assert (len(pages) > 3, pages[-1].unread_ms) == (True, 0)
    for choice in (Choice(), Choice(state=DeliveryState.DELIVERED)):
        chosen = [event for event in events[-40:] if choice.takes(event)]
        assert await last_attempts(topics_ready, choice, 5) == chosen[-5:]
        assert await last_attempts(topics_ready, choice, 1_000) == chosen


async def _both(ended: object, state: DeliveryState) -> bool:
    return (await ended()).count(state) == 2  # type: ignore[operator]


async def test_a_receiver_can_be_tried() -> None:
    secret = {"VOXBUS_NOTIFIER__SIGNING_SECRET": SECRET}
    async with receiving() as receiver:
        good = await invoke(secret, "test", receiver.url)
        refused = await invoke(secret, "test", "http://169.254.169.254/")
    assert json.loads(good.stdout)["status"] == 204
    assert json.loads(next(iter(receiver.bodies.values())))["type"] == "webhook.test"
    assert "link-local" in str(refused.exception)


async def test_choosing_nothing_is_refused() -> None:
    result = await invoke({}, "replay")
    assert result.exit_code == 2
    assert "name the requests" in result.stderr
