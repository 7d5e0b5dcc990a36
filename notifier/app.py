"""Wires the notifier: completions and due retries in, signed webhooks out, outcomes back on the bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from infra.health import Readiness, health_server
from infra.kafka.clients import BusProducer, bus_producer
from infra.kafka.topics import ensure_topics, require_topics
from infra.kafka.work import WorkConsumer, work_consumer
from infra.lifecycle import run_until_stopped
from infra.logging import get_logger
from infra.settings import KafkaSettings
from notifier.delivery_log import DeliveryTail
from notifier.dispatch import Dispatcher
from notifier.endpoint import EndpointLimits
from notifier.intake import GroupHooks, Intake, RetryWaiting, take_fresh
from notifier.ledger import Ledger
from notifier.retry import RetryPolicy
from notifier.sender import Sender, open_sender
from notifier.settings import NotifierSettings, NotifySettings
from notifier.settlement import STAGE, BusSettlement
from notifier.signing import Signer
from schemas import topics

GROUP = "voxbus.notify"
RETRY_GROUP = "voxbus.notify.retry"

_OBSERVE_S = 1.0
# A retry may be this much late; asking the broker less often is worth more.
_RETRY_FETCH_MS = 200
_MAX_HELD_PER_TIER = 1_000

_log = get_logger(__name__)


async def run(settings: NotifySettings, stop: asyncio.Event) -> None:
    """Deliver webhooks until `stop` is set, then drain.

    Raises:
        UserError: no usable secret, the bus does not answer, a topic is missing.
        TaskFailedError: a part failed; nothing it had in hand was committed.
    """
    signer = Signer(settings.notifier.signing_secret.get_secret_value())
    if signer.public_keys:
        _log.info("receivers verify ed25519 signatures with", public_keys=signer.public_keys)
    readiness = Readiness("bus", "group")
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(health_server(settings.health, readiness))
        _log.info("health server", port=port)
        require_topics(await ensure_topics(settings.kafka))
        producer = await stack.enter_async_context(bus_producer(settings.kafka, client_id="voxbus-notify"))
        sender = await stack.enter_async_context(open_sender(settings.notifier, signer))
        ledger = Ledger()
        settlement = _settlement(settings.notifier, producer, ledger)
        dispatcher = await stack.enter_async_context(_dispatcher(settings.notifier, sender, settlement))
        intake = Intake(
            dispatcher,
            producer,
            settlement,
            ledger,
            max_in_hand=2 * settings.notifier.max_waiting,
            first_delay_s=settings.notifier.retry_delays_s[0],
        )
        readiness.met("bus")
        await _take(settings, stop, dispatcher, intake, ledger, readiness)


async def _take(
    settings: NotifySettings,
    stop: asyncio.Event,
    dispatcher: Dispatcher,
    intake: Intake,
    ledger: Ledger,
    readiness: Readiness,
) -> None:
    tail = DeliveryTail(settings.kafka)
    waiting = RetryWaiting(max_held=_MAX_HELD_PER_TIER)
    fresh_hooks = GroupHooks(dispatcher, ledger, tail, lambda: None)
    retry_hooks = GroupHooks(dispatcher, ledger, tail, waiting.forget)
    rebalance_s = settings.kafka.rebalance_timeout_ms / 2000
    async with (
        work_consumer(
            settings.kafka,
            topics=[topics.COMPLETED],
            group=GROUP,
            stage=STAGE,
            hooks=fresh_hooks,
            drain_s=rebalance_s,
        ) as fresh,
        work_consumer(
            _patient(settings.kafka),
            topics=topics.DELIVERY_RETRIES,
            group=RETRY_GROUP,
            stage=STAGE,
            hooks=retry_hooks,
            drain_s=rebalance_s,
        ) as retries,
    ):
        try:
            await run_until_stopped(
                stop,
                fresh=take_fresh(fresh, intake, fresh_hooks),
                retries=waiting.run(retries, intake, retry_hooks),
                settling=dispatcher.watch(),
                observing=_observe(dispatcher),
                joining=_report_joined(fresh, retries, readiness),
            )
        finally:
            readiness.unmet("group", "draining")
            # One deadline for both groups; what still hangs then is tried again after the next start.
            await dispatcher.drain(fresh.held | retries.held, settings.drain_timeout_s)
            await dispatcher.close()


def _settlement(settings: NotifierSettings, producer: BusProducer, ledger: Ledger) -> BusSettlement:
    policy = RetryPolicy(settings.retry_delays_s, settings.retry_jitter, settings.max_retry_after_s)
    # Circuits may happen to be open whenever a delivery's turn comes; a few such turns are granted beyond the schedule.
    return BusSettlement(producer, policy, ledger, give_up_after_s=policy.span_s + 10 * settings.breaker_max_open_s)


@asynccontextmanager
async def _dispatcher(
    settings: NotifierSettings, sender: Sender, settlement: BusSettlement
) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(
        sender.send,
        settlement,
        limits=EndpointLimits(
            max_window=settings.max_connections_per_endpoint,
            breaker_failures=settings.breaker_failures,
            open_s=settings.breaker_open_s,
            max_open_s=settings.breaker_max_open_s,
            patience_s=settings.timeout_s,
        ),
        allowed=settings.allowed_private_networks,
        max_connections=settings.max_connections,
        max_waiting=settings.max_waiting,
    )
    try:
        yield dispatcher
    finally:
        await dispatcher.close()


def _patient(settings: KafkaSettings) -> KafkaSettings:
    return settings.model_copy(update={"fetch_max_wait_ms": max(settings.fetch_max_wait_ms, _RETRY_FETCH_MS)})


async def _observe(dispatcher: Dispatcher) -> None:
    while True:
        dispatcher.observe()
        await asyncio.sleep(_OBSERVE_S)


async def _report_joined(fresh: WorkConsumer, retries: WorkConsumer, readiness: Readiness) -> None:
    await fresh.wait_assigned()
    await retries.wait_assigned()
    readiness.met("group")
    _log.info("taking completions", partitions=len(fresh.held), retry_partitions=len(retries.held))
    await asyncio.Event().wait()
