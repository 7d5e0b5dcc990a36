"""The six agents: each reads one topic, decides, and hands the steps to the carrier."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter

from infra import metrics
from infra.logging import get_logger
from schemas import topics
from schemas.codec import DecodeError, context_of, decode, event_type
from schemas.codes import ErrorCode
from schemas.completions import RequestStatus
from schemas.deliveries import DeliveryAttempted
from schemas.outcomes import RenditionStored, StageProgress, SynthesisFailed
from schemas.requests import CancelAdmitted, CancelRequested, SynthesisAdmitted
from schemas.ticks import Ticked
from synth_consumer.dedup import clock
from synth_consumer.dedup.admission import STAGE, Admission, letter, track
from synth_consumer.dedup.carrier import Carrier
from synth_consumer.dedup.decisions import on_admitted, on_cancelled
from synth_consumer.dedup.deliveries import Memory, on_attempted, on_delivery_due
from synth_consumer.dedup.ledger import Ledger
from synth_consumer.dedup.orders import Policy
from synth_consumer.dedup.records import Record
from synth_consumer.dedup.rows import TableName
from synth_consumer.dedup.settlement import on_progress, on_rendition_stored, on_synthesis_failed
from synth_consumer.dedup.steps import Kind, Step
from synth_consumer.dedup.tables import Tables

_log = get_logger(__name__)
STEPS = Counter("voxbus_dedup_steps_total", "Decisions of the dedup app.", ["kind"])
# Reading ten megabytes of JSON would hold up the loop; a valid request never comes near this.
_LARGE_BYTES = 262_144
_LOOKS_PER_ROW = 8


Handler = Callable[[Record], Iterable[Step]]


@dataclass(slots=True)
class Handlers:
    """What each topic's records lead to."""

    tables: Tables
    admission: Admission
    policy: Policy
    memory: Memory
    due_per_tick: int

    def admit(self, record: Record) -> Iterator[Step]:
        """`tts.requests`."""
        if event_type(record.headers) == CancelRequested.ce_type:
            yield self.admission.on_cancel(record, now=time.time())
            return
        yield self.admission.on_request(record, now=time.time())

    def track(self, record: Record) -> Iterator[Step]:
        """`tts.status`."""
        yield track(self.tables, decode(RequestStatus, record.value))

    def deduplicate(self, record: Record) -> Iterator[Step]:
        """`tts.admitted`."""
        if event_type(record.headers) == CancelAdmitted.ce_type:
            yield self._cancel(decode(CancelAdmitted, record.value))
            return
        request = decode(SynthesisAdmitted, record.value)
        trace = context_of(record.headers).traceparent
        yield on_admitted(self.tables, request, trace, self.policy, now=time.time(), ref=record.ref)

    def _cancel(self, cancel: CancelAdmitted) -> Step:
        waiter = self.tables.waiter(cancel.fingerprint, cancel.request_id)
        if waiter is None or self.tables.is_ending(f"{cancel.fingerprint}/{cancel.request_id}".encode()):
            return Step("ignored")  # it has ended
        return on_cancelled(self.tables, waiter, now=time.time())

    def settle(self, record: Record) -> Iterator[Step]:
        """`tts.outcomes`."""
        kind, now = event_type(record.headers), time.time()
        if kind == RenditionStored.ce_type:
            stored = decode(RenditionStored, record.value)
            yield on_rendition_stored(self.tables, stored, self.policy, now=now, ref=record.ref)
        elif kind == SynthesisFailed.ce_type:
            yield on_synthesis_failed(self.tables, decode(SynthesisFailed, record.value), self.policy, now=now)
        elif kind == StageProgress.ce_type:
            yield on_progress(self.tables, decode(StageProgress, record.value), self.policy, now=now)
        else:
            raise DecodeError("header ce_type names no outcome")

    def note(self, record: Record) -> Iterator[Step]:
        """`tts.deliveries`."""
        yield on_attempted(self.tables, decode(DeliveryAttempted, record.value), self.memory, now=time.time())

    def tick(self, record: Record) -> Iterator[Step]:
        """`tts.ticks`: at most `due_per_tick` rows, so that a tick never holds up the requests."""
        decode(Ticked, record.value)
        now = time.time()
        # Entries of rows that are gone, or not due any more, cost no message: they do not count.
        looks = list(self.tables.agenda(record.partition).due(now, _LOOKS_PER_ROW * self.due_per_tick))
        handled = 0
        for table, key in looks:
            self.tables.looked(table, key)
            step = self._due(table, key, now) if handled < self.due_per_tick else None
            if step is None:
                self.tables.look_again(table, key, record.partition)
            else:
                handled += 1
                yield step

    def _due(self, table: TableName, key: bytes, now: float) -> Step | None:
        name = key.decode()
        if table == "requests":
            request = self.tables.request(name)
            return clock.on_request_due(key, request, now=now) if request else None
        if table == "waiters":
            waiter = self.tables.waiter(*name.split("/", 1))
            if waiter is None or self.tables.is_ending(key):
                return None
            return clock.on_waiter_due(self.tables, waiter, now=now)
        if table == "deliveries":
            delivery = self.tables.delivery(name)
            return on_delivery_due(key, delivery, now=now) if delivery else None
        synthesis = self.tables.synthesis(name)
        return clock.on_synthesis_due(self.tables, synthesis, self.policy, now=now) if synthesis else None


class Agents:
    """Runs handlers over streams. No exception leaves an agent: Faust would take the event for done."""

    def __init__(
        self, ledger: Ledger, carrier: Carrier, namespace: str, *, on_error: Callable[[BaseException], None]
    ) -> None:
        self._ledger = ledger
        self._carrier = carrier
        self._namespace = namespace
        self._on_error = on_error

    def register(self, app: Any, handlers: Handlers) -> None:
        """Make one agent per topic."""
        roads: dict[str, Handler] = {
            topics.REQUESTS: handlers.admit,
            topics.STATUS: handlers.track,
            topics.ADMITTED: handlers.deduplicate,
            topics.OUTCOMES: handlers.settle,
            topics.DELIVERIES: handlers.note,
            topics.TICKS: handlers.tick,
        }
        for topic, handler in roads.items():
            # Raw: what cannot be decoded must reach the handler, for an error before it ends the whole agent.
            channel = app.topic(self._namespace + topic, key_serializer="raw", value_serializer="raw", allow_empty=True)
            app.agent(channel, name=handler.__name__)(self._agent(topic, handler))

    def _agent(self, topic: str, handler: Handler) -> Callable[[Any], Awaitable[None]]:
        async def agent(stream: Any) -> None:
            events: AsyncIterator[Any] = stream.noack().events()
            async for event in events:
                try:
                    await self._handle(topic, handler, event)
                except Exception as error:
                    self._on_error(error)

        return agent

    async def _handle(self, topic: str, handler: Handler, event: Any) -> None:
        await self._ledger.room()
        message = event.message
        record = Record.of(topic, message)
        entry = self._ledger.begin(message.tp, event)
        steps: Iterable[Step]
        if record.value is not None and len(record.value) > _LARGE_BYTES:
            steps = await asyncio.to_thread(self._decide, handler, record)
        else:
            steps = self._decided(handler, record)
        await self._carrier.carry_out(entry, steps, record.partition)
        metrics.MESSAGES.labels(STAGE, topic, "finished").inc()

    def _decide(self, handler: Handler, record: Record) -> list[Step]:
        return list(self._decided(handler, record))

    def _decided(self, handler: Handler, record: Record) -> Iterator[Step]:
        try:
            for step in handler(record):
                self._count(step)
                yield step
        except DecodeError as error:
            _log.warning("not readable", topic=record.topic, partition=record.partition, offset=record.offset)
            yield _dead(record, str(error), error.pointer)
        except Exception:
            # A fault of ours. The event is kept where it can be seen and replayed, and the next one is served.
            _log.exception("not handled", topic=record.topic, partition=record.partition, offset=record.offset)
            yield _dead(record, "the dedup app could not handle this message", "")

    def _count(self, step: Step) -> None:
        STEPS.labels(step.kind).inc()


def _dead(record: Record, message: str, pointer: str) -> Step:
    return Step("refused", outputs=(letter(record, ErrorCode.INTERNAL, message, topic=record.topic, pointer=pointer),))


def counted(kind: Kind) -> int:
    """How many decisions of a kind this worker made since it started."""
    return int(STEPS.labels(kind)._value.get())
