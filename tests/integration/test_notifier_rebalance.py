"""A second notifier comes while attempts hang: nothing is lost, and nothing delivered again once it is noted."""

import asyncio

from aiohttp import web

from infra.settings import KafkaSettings
from notifier.signing import webhook_id
from schemas.deliveries import DeliveryState
from tests.notifier_world import attempts_of, notifying, publish_completions, receiving, settings_for
from tests.waiting import eventually

_HANG_S = 4.0
_NAMES = [f"r-{number}" for number in range(8)]


async def test_a_rebalance_in_a_hanging_attempt_repeats_nothing_that_is_noted(topics_ready: KafkaSettings) -> None:
    """A drain is over after 1 s here, and the first attempts would be answered after 4 s: long after the others'."""

    over = 0

    async def slow_at_first(_request: web.Request, before: int) -> web.StreamResponse:
        nonlocal over
        if not before:
            try:
                await asyncio.sleep(_HANG_S)
            finally:
                over += 1
        return web.Response(status=204)

    kafka = topics_ready.model_copy(update={"rebalance_timeout_ms": 2_000})
    settings = settings_for(kafka, timeout_s=20.0)
    async with receiving(slow_at_first) as receiver, notifying(settings):
        await publish_completions(kafka, _NAMES, receiver.url)
        await eventually(lambda: len(receiver.attempts) == len(_NAMES), 20, "the first attempts")
        async with notifying(settings):
            await eventually(lambda: len(receiver.accepted) == len(_NAMES), 40, "every delivery")
            await eventually(lambda: _noted(kafka), 20, "every delivery noted", every_s=0.3)
            await eventually(lambda: over == len(_NAMES), 20, "the end of all first attempts")
    assert receiver.accepted == dict.fromkeys(map(webhook_id, _NAMES), 1)
    assert max(receiver.attempts.values()) == 2  # some attempts were cut short indeed, and made again


async def _noted(kafka: KafkaSettings) -> bool:
    ended = [event.request_id for event in await attempts_of(kafka) if event.state is DeliveryState.DELIVERED]
    assert len(ended) == len(set(ended)), "noted twice"
    return set(ended) == set(_NAMES)
