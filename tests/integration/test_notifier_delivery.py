"""Completions on a real bus become signed webhooks at a real receiver."""

import time

import pytest
from aiohttp import web

from infra.errors import UserError
from infra.settings import KafkaSettings
from notifier.signing import webhook_id
from schemas import topics
from schemas.completions import RequestCompleted
from schemas.dead_letters import original_headers, read_dead_letter
from schemas.deliveries import DeliveryState
from tests.notifier_world import (
    Receiver,
    attempts_of,
    notifying,
    publish_completions,
    read_all,
    receiving,
    settings_for,
)
from tests.waiting import eventually


async def log_has(kafka: KafkaSettings, state: DeliveryState, count: int = 1) -> bool:
    return sum(event.state is state for event in await attempts_of(kafka)) >= count


async def test_delivered_signed_and_byte_for_byte(topics_ready: KafkaSettings) -> None:
    async with receiving() as receiver, notifying(settings_for(topics_ready)):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: receiver.accepted.total() == 1)
        await eventually(lambda: log_has(topics_ready, DeliveryState.DELIVERED))
    (completion,) = await read_all(topics_ready, topics.COMPLETED)
    assert receiver.bodies == {webhook_id("r-1"): completion.value}
    assert receiver.headers["Content-Type"] == "application/json"
    assert receiver.forged == 0
    (event,) = await attempts_of(topics_ready)
    assert (event.request_id, event.attempt, event.http_status) == ("r-1", 1, 204)
    assert event.webhook_id == webhook_id("r-1")


async def test_no_callback_is_nothing_to_do(topics_ready: KafkaSettings) -> None:
    async with receiving() as receiver, notifying(settings_for(topics_ready)):
        await publish_completions(topics_ready, ["quiet"], None)
        await publish_completions(topics_ready, ["loud"], receiver.url)
        await eventually(lambda: receiver.accepted.total() == 1)
    assert set(receiver.attempts) == {webhook_id("loud")}


async def test_failures_are_tried_again_with_one_id(topics_ready: KafkaSettings) -> None:
    async def third_time(_request: web.Request, before: int) -> web.StreamResponse:
        return web.Response(status=204 if before == 2 else 500)

    async with receiving(third_time) as receiver, notifying(settings_for(topics_ready)):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: log_has(topics_ready, DeliveryState.DELIVERED))
    assert receiver.attempts == {webhook_id("r-1"): 3}
    events = await attempts_of(topics_ready)
    assert [(e.attempt, e.state, e.http_status) for e in events] == [
        (1, DeliveryState.RETRYING, 500),
        (2, DeliveryState.RETRYING, 500),
        (3, DeliveryState.DELIVERED, 204),
    ]


async def test_the_end_of_the_schedule_is_a_replayable_dead_letter(topics_ready: KafkaSettings) -> None:
    async def never(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=500)

    async with receiving(never) as receiver, notifying(settings_for(topics_ready, retry_delays_s=(0.0, 0.1))):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: log_has(topics_ready, DeliveryState.DEAD_LETTERED))
    assert receiver.attempts.total() == 2
    (completion,) = await read_all(topics_ready, topics.COMPLETED)
    (record,) = await read_all(topics_ready, topics.DEAD_LETTERS)
    letter = read_dead_letter(record.headers)
    assert (letter.topic, letter.partition, letter.offset) == (
        topics.COMPLETED,
        completion.partition,
        completion.offset,
    )
    assert (record.key, record.value) == (completion.key, completion.value)
    assert original_headers(record.headers) == tuple(completion.headers)
    assert "2 attempts" in letter.message
    RequestCompleted.model_validate_json(record.value)


async def _ended_after_one(kafka: KafkaSettings, receiver: Receiver, callback: str = "") -> str:
    """Publish one completion, wait for its end, and return the reason of the dead letter."""
    async with notifying(settings_for(kafka)):
        await publish_completions(kafka, ["r-1"], callback or receiver.url)
        await eventually(lambda: log_has(kafka, DeliveryState.DEAD_LETTERED))
    (record,) = await read_all(kafka, topics.DEAD_LETTERS)
    return read_dead_letter(record.headers).message


async def test_410_ends_it(topics_ready: KafkaSettings) -> None:
    async def gone(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=410)

    async with receiving(gone) as receiver:
        assert "410" in await _ended_after_one(topics_ready, receiver)
    assert receiver.attempts.total() == 1


async def test_the_receiver_may_end_it(topics_ready: KafkaSettings) -> None:
    async def abort(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=422, headers={"webhook-delivery": "abort-message"})

    async with receiving(abort) as receiver:
        assert "not sent again" in await _ended_after_one(topics_ready, receiver)
    assert receiver.attempts.total() == 1


async def test_a_refused_target_ends_it_without_an_attempt(topics_ready: KafkaSettings) -> None:
    async with receiving() as receiver:
        reason = await _ended_after_one(topics_ready, receiver, "http://169.254.169.254/latest/meta-data/")
    assert "link-local" in reason
    assert receiver.attempts.total() == 0


async def test_redirects_are_failures_and_not_followed(topics_ready: KafkaSettings) -> None:
    async with receiving() as other:

        async def elsewhere(_request: web.Request, _before: int) -> web.StreamResponse:
            return web.Response(status=307, headers={"location": other.url})

        async with receiving(elsewhere) as receiver:
            reason = await _ended_after_one(topics_ready, receiver)
        assert "307" in reason
        assert receiver.attempts.total() == 4
        assert other.attempts.total() == 0


async def test_retry_after_is_honoured(topics_ready: KafkaSettings) -> None:
    moments: list[float] = []

    async def busy(_request: web.Request, before: int) -> web.StreamResponse:
        moments.append(time.monotonic())
        return web.Response(status=204) if before else web.Response(status=429, headers={"retry-after": "2"})

    async with receiving(busy) as receiver, notifying(settings_for(topics_ready)):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: log_has(topics_ready, DeliveryState.DELIVERED))
    assert moments[1] - moments[0] >= 2.0
    # How much later it came is the machine's affair; what was planned is not.
    first, _second = await attempts_of(topics_ready)
    assert first.next_attempt_at is not None
    assert 1.9 <= (first.next_attempt_at - first.at).total_seconds() < 2.5


async def test_a_hanging_receiver_costs_one_timeout(topics_ready: KafkaSettings) -> None:
    import asyncio

    async def hangs_first(_request: web.Request, before: int) -> web.StreamResponse:
        if not before:
            await asyncio.sleep(60)
        return web.Response(status=204)

    async with receiving(hangs_first) as receiver, notifying(settings_for(topics_ready, timeout_s=0.5)):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: receiver.accepted.total() == 1)
        await eventually(lambda: log_has(topics_ready, DeliveryState.DELIVERED))
    first, _second = await attempts_of(topics_ready)
    assert first.error == "no answer in time"
    assert first.latency_ms >= 500


async def test_without_a_secret_it_says_so(kafka_settings: KafkaSettings) -> None:
    with pytest.raises(UserError, match="VOXBUS_NOTIFIER__SIGNING_SECRET"):
        async with notifying(settings_for(kafka_settings, signing_secret="")):
            pass
