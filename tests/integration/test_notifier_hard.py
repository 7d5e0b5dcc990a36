"""A receiver that is killed while its sender is killed too, and one that hangs beside one that does not."""

import asyncio
import json
import time
from pathlib import Path

from aiohttp import web
from webhook_completions import completion, publish
from webhook_reckoning import faults, reckoned
from webhook_world import DeliveryLog, Place, Receiver, drained, notifier, receiving

from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings
from notifier.signing import webhook_id
from schemas import topics
from tests import notifier_world
from tests.notifier_world import attempts_of, notifying, settings_for
from tests.waiting import eventually

_HANGING = 2_500
_PROBING_S = 8.0


async def test_receiver_and_notifier_are_killed_and_every_repeat_has_its_cause(
    topics_ready: KafkaSettings, tmp_path: Path
) -> None:
    place = Place(topics_ready, tmp_path)
    names = [f"r-{number:04}" for number in range(600)]
    log, retry = DeliveryLog(topics_ready), {"retry_delays_s": json.dumps([0, *[0.5] * 20]), "timeout_s": "3"}
    with receiving(place, fail=0.2) as bad:
        await publish(topics_ready, names, bad.url)
        async with notifier(place, **retry) as running:
            await eventually(lambda: bad.has_accepted(60), 30, "deliveries before any kill")
            receiver_killed = await _restart(bad, log)
            more = len(bad.accepted) + 60
            await eventually(lambda: bad.has_accepted(more), 30, "deliveries after the receiver's restart")
            notifier_killed = time.time()
            running.kill()
        async with notifier(place, **retry):
            await eventually(lambda: _all_noted(log, names), 40, "every delivery noted", every_s=0.5)
            await eventually(lambda: drained(topics_ready), 20, "nothing waits on the bus", every_s=0.5)
        bad.refresh()
    figures = await reckoned(place, bad, log, names, [notifier_killed], [receiver_killed])
    assert not faults(figures), figures
    assert figures["delivered"] == figures["noted_as_delivered"] == len(names)


async def _restart(bad: Receiver, log: DeliveryLog) -> float:
    began = time.time()
    bad.kill()
    killed = time.time()

    async def missed() -> bool:
        await log.refresh()
        return bool(log.unanswered(began))

    await eventually(missed, 20, "an attempt that found the receiver dead", every_s=0.2)
    bad.start(seed=2)
    return killed


async def _all_noted(log: DeliveryLog, names: list[str]) -> bool:
    await log.refresh()
    return log.noted().keys() == set(names)


async def test_a_receiver_that_stalls_at_first_is_not_idle_afterwards(
    topics_ready: KafkaSettings, tmp_path: Path
) -> None:
    """What the stall put off was spaced over minutes by the rate it showed, and waits for room only."""
    place = Place(topics_ready, tmp_path)
    names = [f"r-{number:04}" for number in range(_HANGING)]
    with receiving(place, verify_every=50, stall=2.0) as stalled:
        await publish(topics_ready, names, stalled.url)
        async with notifier(place):
            await eventually(lambda: stalled.has_accepted(len(names)), 25, "everything delivered", every_s=0.2)
    assert stalled.accepted.total() == len(names)


async def test_many_waiting_for_a_hanging_host_do_not_delay_a_healthy_one(topics_ready: KafkaSettings) -> None:
    """With a timeout of one second, a delivery that stood behind a hanging attempt would take longer than that."""

    async def hang(_request: web.Request, _before: int) -> web.StreamResponse:
        await asyncio.sleep(3_600)
        return web.Response(status=204)

    settings = settings_for(topics_ready, timeout_s=1.0, retry_delays_s=(0.0, *(5.0,) * 20))
    async with notifier_world.receiving(hang) as hanging, notifier_world.receiving() as healthy, notifying(settings):
        await publish(topics_ready, [f"stuck-{number}" for number in range(_HANGING)], hanging.url)
        await eventually(lambda: hanging.attempts.total() > 0, 20, "a first attempt that hangs")
        took: list[float] = []
        async with bus_producer(topics_ready, client_id="test") as producer:
            until = time.monotonic() + _PROBING_S
            while time.monotonic() < until:
                name, began = f"probe-{len(took)}", time.monotonic()
                await producer.deliver(topics.COMPLETED, completion(name, healthy.url))
                await eventually(lambda name=name: healthy.accepted[webhook_id(name)], 15, name, every_s=0.005)  # type: ignore[misc]
                took.append(time.monotonic() - began)
        stuck = {event.request_id for event in await attempts_of(topics_ready) if "stuck" in event.request_id}
    took.sort()
    assert took[int(0.95 * len(took))] < 1.0, f"{len(took)} probes, the slowest {took[-5:]} s"
    # They did wait, and for a host that hangs: nothing of it was delivered, few even tried.
    assert hanging.accepted.total() == 0
    assert 0 < len(stuck) < _HANGING
