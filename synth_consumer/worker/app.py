"""Composition root of the worker: wires slots, engines, bus and counters, and ends them in order."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.health import Readiness, health_server
from infra.kafka.clients import BusProducer, bus_producer, unreachable
from infra.kafka.topics import ensure_topics
from infra.lifecycle import TaskFailedError, starting
from infra.logging import get_logger
from schemas import topics
from synth_consumer.worker import metrics
from synth_consumer.worker.control import obey_cancellations
from synth_consumer.worker.devices import take_inventory
from synth_consumer.worker.engine_factory import FACTORY
from synth_consumer.worker.engine_keeper import EngineKeeper
from synth_consumer.worker.engine_process import EngineLaunch, EngineRefusedError
from synth_consumer.worker.frames import Open
from synth_consumer.worker.job_book import JobBook
from synth_consumer.worker.job_speaker import JobSpeaker
from synth_consumer.worker.retry import Backoff
from synth_consumer.worker.settings import SynthSettings, WorkerSettings
from synth_consumer.worker.slot import Slot
from synth_consumer.worker.slot_plan import SlotPlan, SlotSpec, partition_warning, plan_slots
from synth_consumer.worker.suspects import Suspects, shared_suspects
from synth_consumer.worker.take_stream import Desk

_log = get_logger(__name__)


async def current_plan(settings: SynthSettings) -> SlotPlan:
    """The plan for this machine.

    Raises:
        UserError: no device can hold the engine.
    """
    plan = plan_slots(settings, await take_inventory())
    if not plan.slots:
        raise UserError(f"no device here can hold engine {settings.engine}: {plan.reason}; see `voxbus synth --plan`")
    return plan


async def run_worker(settings: WorkerSettings, stop: asyncio.Event, *, factory: str = FACTORY) -> None:
    """Speak jobs until `stop`; then drain within `drain_timeout_s`.

    Args:
        settings: of the process.
        stop: ends the worker in good order.
        factory: "module:function" that makes the engine; tests put their own.

    Raises:
        UserError: a server does not answer, or the engine cannot be loaded.
    """
    plan = await current_plan(settings.synth)
    _log.info("slot plan", slots=len(plan.slots), reason=plan.reason)
    readiness = Readiness(*(_condition(spec.index) for spec in plan.slots))
    async with AsyncExitStack() as stack:
        async with starting(stop):
            port = await stack.enter_async_context(health_server(settings.health, readiness))
            _log.info("health server listens", port=port)
            producer = await stack.enter_async_context(bus_producer(settings.kafka, client_id="voxbus-synth"))
            suspects = await stack.enter_async_context(shared_suspects(settings.redis))
            await ensure_topics(settings.kafka)
            await _say_idle_slots(producer, len(plan.slots))
        try:
            await _Worker(settings, plan, producer, suspects, readiness, factory).run(stop)
        except KafkaError as error:
            _log.error("the bus failed", error=repr(error))
            raise unreachable(settings.kafka) from error


async def _say_idle_slots(producer: BusProducer, slots: int) -> None:
    for topic in (topics.JOBS_INTERACTIVE, topics.JOBS_BULK):
        warning = partition_warning(slots, await producer.partitions(topic), topic=topic)
        if warning is not None:
            _log.warning(warning)


def _condition(slot: int) -> str:
    return f"slot {slot}"


class _Worker:
    """All slots of this process."""

    def __init__(
        self,
        settings: WorkerSettings,
        plan: SlotPlan,
        producer: BusProducer,
        suspects: Suspects,
        readiness: Readiness,
        factory: str,
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._suspects = suspects
        self._readiness = readiness
        self._factory = factory
        self._book = JobBook()
        self._keepers = [self._keeper(spec) for spec in plan.slots]
        self._slots = [self._slot(spec, keeper) for spec, keeper in zip(plan.slots, self._keepers, strict=True)]

    async def run(self, stop: asyncio.Event) -> None:
        """Run every slot with its engine until all slots have drained after `stop`, or a part fails."""
        # Asked when it is read: takes enter their lanes without a word to anybody.
        metrics.LANES_BUSY.set_function(lambda: sum(keeper.gate.busy for keeper in self._keepers))
        control = asyncio.create_task(obey_cancellations(self._settings.kafka, self._book), name="control")
        engines = [asyncio.create_task(k.run(), name=f"engine {i}") for i, k in enumerate(self._keepers)]
        slots = [asyncio.create_task(slot.run(stop), name=f"slot {slot.index}") for slot in self._slots]
        try:
            await _all_end(slots, unless=engines)
        except EngineRefusedError as error:
            raise UserError(f"engine {self._settings.synth.engine} cannot be loaded: {error}") from None
        finally:
            for task in (*slots, *engines, control):
                task.cancel()
            await asyncio.gather(*slots, *engines, control, return_exceptions=True)

    def _keeper(self, spec: SlotSpec) -> EngineKeeper:
        synth = self._settings.synth
        opening = Open(
            self._factory,
            synth.model_copy(update={"lanes": spec.lanes}).model_dump_json(),
            synth.first_chunk_s,
            synth.chunk_s,
        )
        launch = EngineLaunch(opening, synth.load_timeout_s, synth.step_timeout_s, spec.environment)
        return EngineKeeper(
            spec.index,
            launch,
            backoff=Backoff(first_s=synth.restart_delay_s),
            keep_alive_s=synth.keep_alive_s,
            on_change=self._changed,
        )

    def _slot(self, spec: SlotSpec, keeper: EngineKeeper) -> Slot:
        desk = Desk(self._producer, asyncio.Semaphore(self._settings.synth.unsent_chunks))
        return Slot(
            spec.index,
            settings=self._settings.synth,
            kafka=self._settings.kafka,
            keeper=keeper,
            speaker=JobSpeaker(keeper, desk, self._suspects),
            book=self._book,
            producer=self._producer,
            drain_timeout_s=self._settings.drain_timeout_s,
            on_change=self._changed,
        )

    def _changed(self) -> None:
        """Something came up or went down: say so to readiness and metrics."""
        reasons = {slot.index: slot.waiting_for for slot in self._slots}
        for index, reason in reasons.items():
            if reason is None:
                self._readiness.met(_condition(index))
            else:
                self._readiness.unmet(_condition(index), reason)
        ready = sum(reason is None for reason in reasons.values())
        metrics.SLOTS.labels("ready").set(ready)
        metrics.SLOTS.labels("waiting").set(len(reasons) - ready)
        metrics.LANES.set(sum(keeper.gate.lanes for keeper in self._keepers))


async def _all_end(slots: Iterable["asyncio.Task[None]"], *, unless: Iterable["asyncio.Task[None]"]) -> None:
    """Wait until all slots have ended; an engine's task never ends on its own, so its end is an error."""
    waiting = {*slots}
    engines = {*unless}
    while waiting:
        done, _ = await asyncio.wait(waiting | engines, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            if task in engines:
                raise TaskFailedError(task.get_name())
        waiting -= done
