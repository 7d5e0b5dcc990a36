"""`voxbus webhooks` on a real bus."""

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web
from click.testing import CliRunner, Result

from infra.errors import UserError
from infra.settings import KafkaSettings
from notifier.cli import webhooks
from notifier.signing import webhook_id
from schemas.deliveries import DeliveryState
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
