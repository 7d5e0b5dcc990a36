"""Named endpoints on a real bus: every completion beside the callback, disabled when they are gone, enabled by hand."""

import asyncio
import json
from pathlib import Path

from aiohttp import web
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner, Result

from infra.errors import UserError
from infra.kafka.clients import connection_options
from infra.settings import KafkaSettings
from notifier.cli import webhooks
from notifier.endpoint_states import change_endpoint, endpoint_states
from notifier.signing import webhook_id
from schemas import topics
from schemas.base import utc_now
from schemas.deliveries import DeliveryState
from tests.environment import variables
from tests.notifier_world import SECRET, attempts_of, notifying, publish_completions, read_all, receiving, settings_for
from tests.waiting import eventually

OTHER = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="


def endpoints_file(folder: Path, text: str) -> Path:
    path = folder / "endpoints.toml"
    path.write_text(text)
    return path


async def invoke(kafka: KafkaSettings, *arguments: str, **notifier: str) -> Result:
    env = variables(kafka=kafka) | {f"VOXBUS_NOTIFIER__{name.upper()}": value for name, value in notifier.items()}
    return await asyncio.to_thread(CliRunner().invoke, webhooks, list(arguments), env=env)


async def ended(kafka: KafkaSettings, count: int) -> bool:
    return sum(event.state is not DeliveryState.RETRYING for event in await attempts_of(kafka)) >= count


async def is_disabled(kafka: KafkaSettings, name: str) -> bool:
    state = (await endpoint_states(kafka)).get(name)
    return state is not None and state.disabled


async def make_topic(kafka: KafkaSettings, name: str) -> None:
    admin = AIOKafkaAdminClient(**connection_options(kafka))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(kafka.namespace + name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_one_completion_reaches_callback_endpoints_and_topic(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async def second_time(_request: web.Request, before: int) -> web.StreamResponse:
        return web.Response(status=204 if before else 500)

    await make_topic(topics_ready, "team.speech")
    async with receiving() as own, receiving(second_time) as crm, receiving() as picky:
        path = endpoints_file(
            tmp_path,
            f"""
            [endpoints.crm]
            url = "{crm.url}"
            secrets = ["{OTHER}", "{SECRET}"]
            headers = {{ X-Team = "voice" }}
            [endpoints.picky]
            url = "{picky.url}"
            events = ["speech.completed"]
            [endpoints.lake]
            url = "kafka://team.speech"
            """,
        )
        settings = settings_for(topics_ready, endpoints_file=path, allowed_topic_prefixes=("team.",))
        async with notifying(settings):
            await publish_completions(topics_ready, ["r-1"], own.url)
            await publish_completions(topics_ready, ["r-quiet"], None)
            await eventually(lambda: ended(topics_ready, 5))
    assert own.attempts == {webhook_id("r-1"): 1}
    names = {webhook_id("r-1", "crm"), webhook_id("r-quiet", "crm")}
    assert crm.attempts == dict.fromkeys(names, 2)  # one id on both attempts
    assert crm.headers["X-Team"] == "voice"
    assert crm.headers["webhook-signature"].count("v1,") == 2
    assert picky.attempts.total() == 0  # these were speech.failed
    (one, other) = await read_all(topics_ready, "team.speech")
    assert {one.key, other.key} == {b"r-1", b"r-quiet"}
    headers = dict(one.headers)
    assert headers["ce_id"].decode() == webhook_id(one.key.decode(), "lake")
    assert headers["ce_type"] == b"voxbus.request.completed.v1"
    assert "ce_callbackurl" not in headers
    events = [event for event in await attempts_of(topics_ready) if event.request_id == "r-1"]
    assert {event.endpoint for event in events} == {None, "crm", "lake"}
    (lake,) = (event for event in events if event.endpoint == "lake")
    assert (lake.state, lake.host) == (DeliveryState.DELIVERED, "kafka://team.speech")


async def test_410_disables_over_restarts_until_enabled(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    gone = True

    async def answer(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=410 if gone else 204)

    async with receiving(answer) as crm, receiving() as own:
        settings = settings_for(
            topics_ready, endpoints_file=endpoints_file(tmp_path, f"[endpoints.crm]\nurl = '{crm.url}'")
        )
        async with notifying(settings):
            await publish_completions(topics_ready, ["r-1"], None)
            await eventually(lambda: is_disabled(topics_ready, "crm"))
            await eventually(lambda: ended(topics_ready, 1))
        gone = False
        async with notifying(settings):
            # The endpoint stays disabled; the callback is served.
            await publish_completions(topics_ready, ["r-2"], own.url)
            await eventually(lambda: own.accepted.total() == 1)
            assert crm.attempts.total() == 1
            assert json.loads((await invoke(topics_ready, "endpoints")).stdout)["disabled"] is True
            refused = await invoke(topics_ready, "replay", "--endpoint", "crm", "--state", "dead_lettered")
            assert "crm is disabled" in str(refused.exception)
            # Enabled by hand, it gets again what it missed, and nobody else does.
            assert (await invoke(topics_ready, "enable", "crm")).exit_code == 0
            done = await invoke(topics_ready, "replay", "--endpoint", "crm", "--state", "dead_lettered")
            assert json.loads(done.stdout) == {"replayed": 1}
            await eventually(lambda: crm.accepted[webhook_id("r-1", "crm")] == 1, 30)
        assert own.attempts.total() == 1
        assert set(crm.accepted) == {webhook_id("r-1", "crm")}
        unknown = await asyncio.to_thread(
            CliRunner().invoke,
            webhooks,
            ["enable", "crn"],
            env={"VOXBUS_NOTIFIER__ENDPOINTS_FILE": str(settings.notifier.endpoints_file)},
        )
    assert isinstance(unknown.exception, UserError)
    assert "only: crm" in str(unknown.exception)


async def given_to(kafka: KafkaSettings, name: str) -> set[str]:
    """Requests that are noted as delivered to an endpoint."""
    events = await attempts_of(kafka)
    return {e.request_id for e in events if e.endpoint == name and e.state is DeliveryState.DELIVERED}


async def test_what_came_while_it_was_disabled_can_be_replayed(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async def has(names: set[str]) -> bool:
        return await given_to(topics_ready, "crm") == names

    missed = {f"r-missed-{number}" for number in range(3)}
    async with receiving() as crm, receiving() as own:
        path = endpoints_file(tmp_path, f"[endpoints.crm]\nurl = '{crm.url}'")
        settings = settings_for(topics_ready, endpoints_file=path)
        async with notifying(settings):
            await publish_completions(topics_ready, ["r-before"], None)
            await eventually(lambda: has({"r-before"}))
            began = utc_now().isoformat()
            await publish_completions(topics_ready, ["r-given"], None)
            await eventually(lambda: has({"r-before", "r-given"}))
            assert (await invoke(topics_ready, "disable", "crm")).exit_code == 0
        # A new notifier knows before it takes a completion who is disabled; their callbacks say when they are taken.
        async with notifying(settings):
            await publish_completions(topics_ready, missed, own.url)
            await eventually(lambda: own.accepted.total() == len(missed))
            assert crm.attempts.total() == 2
            assert (await invoke(topics_ready, "enable", "crm")).exit_code == 0
            choice = ("replay", "--endpoint", "crm", "--since", began)
            done = await invoke(topics_ready, *choice, endpoints_file=str(path))
            assert json.loads(done.stdout) == {"replayed": len(missed)}
            await eventually(lambda: has({"r-before", "r-given", *missed}), 30)
            again = await invoke(topics_ready, *choice, endpoints_file=str(path))
            assert json.loads(again.stdout) == {"replayed": 0}
    assert crm.accepted == {webhook_id(name, "crm"): 1 for name in ("r-before", "r-given", *missed)}
    assert set(own.accepted.values()) == {1}


async def test_all_endpoints_of_the_file_are_shown_and_can_be_tried(
    topics_ready: KafkaSettings, tmp_path: Path
) -> None:
    async with receiving() as crm:
        path = endpoints_file(
            tmp_path,
            f"""
            [endpoints.crm]
            url = "{crm.url}"
            secrets = ["{OTHER}", "{SECRET}"]
            headers = {{ X-Team = "voice" }}
            [endpoints.lake]
            url = "kafka://team.speech"
            """,
        )
        given = {"endpoints_file": str(path), "allowed_topic_prefixes": '["team."]'}
        await change_endpoint(topics_ready, "former", disabled=True)
        shown = await invoke(topics_ready, "endpoints", **given)
        endpoints = {(row := json.loads(line))["name"]: row for line in shown.stdout.splitlines()}
        assert list(endpoints) == ["crm", "former", "lake"]
        assert endpoints["crm"] == {
            "name": "crm",
            "configured": True,
            "url": crm.url,
            "events": ["*"],
            "secrets": 2,
            "headers": ["X-Team"],
            "disabled": False,
        }
        assert (endpoints["former"]["configured"], endpoints["former"]["disabled"]) == (False, True)
        assert SECRET not in shown.stdout

        tried = await invoke(topics_ready, "test", "crm", **given)
        assert json.loads(tried.stdout)["status"] == 204
        topic = await invoke(topics_ready, "test", "lake", **given)
        unknown = await invoke(topics_ready, "test", "crn", **given)
        no_file = await invoke(topics_ready, "test", "crm")
    assert crm.headers["X-Team"] == "voice"
    assert crm.headers["webhook-signature"].count("v1,") == 2
    assert "consume team.speech" in str(topic.exception)
    assert "only: crm, lake" in str(unknown.exception)
    assert "VOXBUS_NOTIFIER__ENDPOINTS_FILE is not set" in str(no_file.exception)


async def test_long_failure_disables(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async def broken(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=500)

    async with receiving(broken) as crm:
        settings = settings_for(
            topics_ready,
            endpoints_file=endpoints_file(tmp_path, f"[endpoints.crm]\nurl = '{crm.url}'"),
            endpoint_disable_after_s=1.0,
            retry_delays_s=(0.0, *(0.3,) * 20),
        )
        async with notifying(settings):
            await publish_completions(topics_ready, ["r-1"], None)
            await eventually(lambda: is_disabled(topics_ready, "crm"))
            # What still waits for it ends with that reason.
            await eventually(lambda: ended(topics_ready, 1))
    last = (await attempts_of(topics_ready))[-1]
    assert (last.state, last.error) == (DeliveryState.DEAD_LETTERED, "refused: the endpoint crm is disabled")
    states = [json.loads(record.value) for record in await read_all(topics_ready, topics.ENDPOINTS)]
    assert [state["disabled"] for state in states] == [False, True]
