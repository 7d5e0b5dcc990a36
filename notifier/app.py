"""Wires the notifier: completions and due retries in, signed webhooks out, outcomes back on the bus."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from infra.health import Readiness, health_server
from infra.kafka.clients import BusProducer, bus_producer
from infra.kafka.topics import ensure_topics, require_topics
from infra.kafka.work import WorkConsumer, work_consumer
from infra.lifecycle import run_until_stopped, starting
from infra.logging import get_logger
from infra.settings import KafkaSettings
from notifier.attempt import AttemptResult
from notifier.bus_destination import BusDestination
from notifier.delivery import Delivery
from notifier.delivery_log import DeliveryTail
from notifier.directory import Directory
from notifier.dispatch import Dispatcher
from notifier.endpoint import EndpointLimits
from notifier.endpoint_states import StateReader
from notifier.intake import GroupHooks, Intake, RetryWaiting, take_fresh
from notifier.ledger import Ledger
from notifier.named_endpoint import read_endpoints
from notifier.retry import RetryPolicy
from notifier.route import Router
from notifier.sender import Sender, open_sender
from notifier.settings import NotifierSettings, NotifySettings
from notifier.settlement import STAGE, BusSettlement
from notifier.signing import Signer
from notifier.targets import Target
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
    directory = _directory(settings.notifier)
    for name, keys in directory.public_keys.items():
        _log.info("receivers verify ed25519 signatures with", endpoint=name, public_keys=keys)
    readiness = Readiness("bus", "group")
    async with AsyncExitStack() as stack:
        async with starting(stop):
            port = await stack.enter_async_context(health_server(settings.health, readiness))
            _log.info("health server", port=port)
            require_topics(await ensure_topics(settings.kafka))
            producer = await stack.enter_async_context(bus_producer(settings.kafka, client_id="voxbus-notify"))
        sender = await stack.enter_async_context(open_sender(settings.notifier, signer, directory))
        bus = BusDestination(producer, settings.notifier.timeout_s)
        ledger = Ledger()
        settlement = _settlement(settings.notifier, producer, ledger, directory)
        dispatcher = await stack.enter_async_context(_dispatcher(settings.notifier, sender, bus, settlement, directory))
        intake = Intake(
            dispatcher,
            producer,
            ledger,
            directory,
            max_in_hand=2 * settings.notifier.max_waiting,
            first_delay_s=settings.notifier.retry_delays_s[0],
        )
        readiness.met("bus")
        await _take(settings, stop, dispatcher, intake, ledger, StateReader(settings.kafka, directory), readiness)


async def _take(
    settings: NotifySettings,
    stop: asyncio.Event,
    dispatcher: Dispatcher,
    intake: Intake,
    ledger: Ledger,
    states: StateReader,
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
                endpoints=states.run(),
                fresh=_after(states, take_fresh(fresh, intake, fresh_hooks)),
                retries=_after(states, waiting.run(retries, intake, retry_hooks)),
                settling=dispatcher.watch(),
                observing=_observe(dispatcher),
                joining=_report_joined(fresh, retries, readiness),
            )
        finally:
            readiness.unmet("group", "draining")
            # One deadline for both groups; what still hangs then is tried again after the next start.
            await dispatcher.drain(fresh.held | retries.held, settings.drain_timeout_s)
            await dispatcher.close()


def _directory(settings: NotifierSettings) -> Directory:
    path = settings.endpoints_file
    endpoints = read_endpoints(path, settings.allowed_topic_prefixes) if path else {}
    return Directory(endpoints, disable_after_s=settings.endpoint_disable_after_s)


async def _after(states: StateReader, work: Coroutine[Any, Any, None]) -> None:
    """Take nothing before it is known which endpoints are disabled."""
    try:
        await states.known()
    except BaseException:
        work.close()
        raise
    await work


def _settlement(
    settings: NotifierSettings, producer: BusProducer, ledger: Ledger, directory: Directory
) -> BusSettlement:
    policy = RetryPolicy(settings.retry_delays_s, settings.retry_jitter, settings.max_retry_after_s)
    # Circuits may happen to be open whenever a delivery's turn comes; a few such turns are granted beyond the schedule.
    give_up_after_s = policy.span_s + 10 * settings.breaker_max_open_s
    return BusSettlement(producer, policy, ledger, directory, give_up_after_s=give_up_after_s)


@asynccontextmanager
async def _dispatcher(
    settings: NotifierSettings, sender: Sender, bus: BusDestination, settlement: BusSettlement, directory: Directory
) -> AsyncIterator[Dispatcher]:
    async def send(delivery: Delivery, target: Target) -> AttemptResult:
        return await (bus.send(delivery, target.topic) if target.topic else sender.send(delivery, target))

    dispatcher = Dispatcher(
        send,
        settlement,
        route=Router(directory, settings.allowed_private_networks).route,
        limits=EndpointLimits(
            max_window=settings.max_connections_per_endpoint,
            breaker_failures=settings.breaker_failures,
            open_s=settings.breaker_open_s,
            max_open_s=settings.breaker_max_open_s,
            patience_s=settings.timeout_s,
            attempt_s=settings.timeout_s,
        ),
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
