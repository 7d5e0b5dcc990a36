"""Wires the dedup app together and runs it."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faust.exceptions import ConsistencyError

from infra import metrics
from infra.errors import UserError
from infra.health import Readiness, health_server
from infra.kafka.clients import BusProducer, bus_producer
from infra.kafka.topics import ensure_topics, require_topics
from infra.lifecycle import StoppedWhileStartingError, starting
from infra.logging import get_logger
from infra.speech import Speech
from infra.voices import load_catalogue
from schemas import topics
from schemas.ticks import Ticked
from synth_consumer.dedup.admission import STAGE, Admission
from synth_consumer.dedup.agents import Agents, Handlers, counted
from synth_consumer.dedup.carrier import Carrier
from synth_consumer.dedup.deliveries import Memory
from synth_consumer.dedup.ledger import Ledger
from synth_consumer.dedup.orders import Policy
from synth_consumer.dedup.rows import moment
from synth_consumer.dedup.settings import Settings
from synth_consumer.dedup.steps import say
from synth_consumer.dedup.tables import Tables
from synth_consumer.dedup.transport import new_app
from synth_consumer.dedup.web import Owners, Views, listen, url_of, web_server

_log = get_logger(__name__)
_WATCH_EVERY_S = 0.2
_COPARTITIONED = (
    topics.REQUESTS,
    topics.STATUS,
    topics.ADMITTED,
    topics.OUTCOMES,
    topics.DELIVERIES,
    topics.TICKS,
)


@dataclass(slots=True)
class Worker:
    """A running dedup worker."""

    settings: Settings
    faust: Any
    tables: Tables
    ledger: Ledger
    producer: BusProducer
    readiness: Readiness
    failure: "asyncio.Future[None]"

    async def serve(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            Exception: what made going on impossible; events in hand are not acknowledged then.
        """
        stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self.faust.start())
        beside: list[asyncio.Task[None]] = [asyncio.create_task(self._watch()), asyncio.create_task(self._tick())]
        try:
            waits: set[asyncio.Future[Any]] = {stopping, self.failure, *beside}
            done, _ = await asyncio.wait({starting, *waits}, return_when=asyncio.FIRST_COMPLETED)
            if done == {starting}:
                starting.result()
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                await task
        finally:
            self.readiness.unmet("tables", "stopping")
            for task in (stopping, *beside):
                task.cancel()
            await asyncio.gather(stopping, *beside, return_exceptions=True)
            await self._shut_down(starting)

    async def _shut_down(self, starting: "asyncio.Task[None]") -> None:
        if starting.done() and not self.failure.done() and not self.faust.should_stop:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.drain_timeout_s):
                    await self.faust.consumer.finish_in_hand()
        # Faust waits for nothing here: what is not finished is done again by whoever gets the partitions.
        self.faust.conf.stream_wait_empty = False
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await self.faust.stop()

    async def _watch(self) -> None:
        """Keeps readiness and the gauge true; ends with the reason when Faust gave up."""
        while True:
            if self.faust.should_stop:
                raise self.faust.crash_reason or RuntimeError("the Faust app stopped by itself")
            if recovered(self.faust):
                self.readiness.met("tables")
            else:
                self.readiness.unmet("tables", "partitions are being assigned or recovered")
            metrics.IN_FLIGHT.labels(STAGE).set(self.ledger.in_flight)
            await asyncio.sleep(_WATCH_EVERY_S)

    async def _tick(self) -> None:
        """Tells each partition held here that time passed, when some row of it is due."""
        topic = self.settings.kafka.namespace + topics.TICKS
        while True:
            await asyncio.sleep(self.settings.dedup.tick_interval_s)
            if not self.readiness.ready:
                continue
            now = time.time()
            held = [tp.partition for tp in self.faust.consumer.assignment() if tp.topic == topic]
            for partition in held:
                if self.tables.agenda(partition).next_at <= now:
                    tick = say(topics.TICKS, Ticked(partition=partition, at=moment(now)))
                    await self.producer.send(tick.topic, tick.message, partition=partition)


def recovered(faust: Any) -> bool:
    """Whether the group has settled and every row held here is read back."""
    return bool(faust.started and not faust.rebalancing and faust.tables.actives_ready)


def _counts() -> dict[str, int]:
    return {"hits": counted("stored"), "joins": counted("join"), "misses": counted("new")}


async def _partitions(settings: Settings) -> int:
    states = await ensure_topics(settings.kafka)
    require_topics(states)
    found = {state.name: state.partitions for state in states if state.name in _COPARTITIONED}
    if len(set(found.values())) != 1:
        listed = ", ".join(f"{name} has {count}" for name, count in sorted(found.items()))
        raise UserError(f"these topics must have equally many partitions: {listed}")
    return next(iter(found.values()))


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[Worker]:
    """A worker with its servers up, not yet a member of the group.

    Raises:
        UserError: bus, topics, voices or a port are not as they must be.
    """
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_error(error: BaseException) -> None:
        if not failure.done():
            _log.error("cannot go on", error=repr(error))
            failure.set_exception(error)

    dedup, synth = settings.dedup, settings.synth
    speech = Speech(load_catalogue(synth.voices_file), synth.engine, synth.revision)
    async with AsyncExitStack() as stack:
        readiness = Readiness("tables")
        health_port = await stack.enter_async_context(health_server(settings.health, readiness))
        partitions = await _partitions(settings)
        producer = await stack.enter_async_context(bus_producer(settings.kafka, client_id="voxbus-dedup"))
        listener = stack.enter_context(listen(dedup))
        own_url = url_of(dedup, listener)
        data_dir = dedup.data_dir
        if dedup.store == "memory":
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voxbus-dedup-")))
        faust = new_app(settings.kafka, dedup, partitions=partitions, web_url=own_url, data_dir=data_dir)
        tables = Tables(faust, partitions, on_error=on_error)
        ledger = Ledger(dedup.max_in_flight)
        policy = Policy(dedup.stored_ttl_s, dedup.redrive_after_s, dedup.max_drives, dedup.progress_fan_out)
        admission = Admission(tables, speech, partitions, dedup.request_retention_s, dedup.max_request_bytes)
        carrier = Carrier(tables, producer, ledger, on_error=on_error)
        agents = Agents(ledger, carrier, settings.kafka.namespace, on_error=on_error)
        memory = Memory(dedup.delivery_attempts_kept, dedup.delivery_retention_s)
        agents.register(faust, Handlers(tables, admission, policy, memory, dedup.due_per_tick))
        owners = Owners(own_url, lambda: faust.assignor.changelog_distribution, lambda: recovered(faust))
        views = web_server(listener, lambda peer: Views(tables, partitions, owners, _counts, peer))
        await stack.enter_async_context(views)
        _log.info("listening", health_port=health_port, web=own_url)
        yield Worker(settings, faust, tables, ledger, producer, readiness, failure)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one worker until `stop` is set.

    Raises:
        UserError: it could not begin or go on; what was in hand is done again by whoever takes its partitions.
    """
    try:
        async with AsyncExitStack() as stack:
            async with starting(stop):
                one = await stack.enter_async_context(worker(settings))
            await one.serve(stop)
    except (UserError, StoppedWhileStartingError):
        raise
    except ConsistencyError:
        raise UserError(
            f"the rows in {settings.dedup.data_dir} belong to another bus, or to one that lost its log; "
            "remove that folder (VOXBUS_DEDUP__DATA_DIR) and they are read anew"
        ) from None
    except Exception as error:
        _log.exception("cannot go on")
        raise UserError(f"the dedup worker cannot go on ({type(error).__name__}: {error}); see its log") from None
