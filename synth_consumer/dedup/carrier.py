"""Carries out steps: rows and messages first, removals once those are confirmed, the acknowledgement last.

Of a step that ends waiters the rows come first: their bad ends are confirmed before they are told.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka.errors import MessageSizeTooLargeError

from infra import metrics
from infra.kafka.clients import BusProducer
from infra.logging import get_logger, trace_id
from schemas import topics
from schemas.codec import Message, context_of
from schemas.dead_letters import read_dead_letter
from synth_consumer.dedup.ledger import Entry, Ledger
from synth_consumer.dedup.orders import told_write, waiter_write
from synth_consumer.dedup.steps import Output, Step, Write
from synth_consumer.dedup.tables import Tables

_log = get_logger(__name__)

# Messages on their way for one event; then the bus is waited for. Also how often the loop is let go.
_WINDOW = 1_000
_YIELD_EVERY = 100
_KEPT_BYTES = 1_024  # of a message whose dead letter would not fit on the bus


class Carrier:
    """Connects decisions with tables and bus."""

    def __init__(
        self, tables: Tables, producer: BusProducer, ledger: Ledger, *, on_error: Callable[[BaseException], None]
    ) -> None:
        self._tables = tables
        self._producer = producer
        self._ledger = ledger
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry_out(self, entry: Entry, decided: Iterable[Step], partition: int) -> None:
        """Begin with what an event leads to. Returns when the next event may be looked at, not when all is done.

        Steps are taken one by one, each decided on the rows as the one before left them. An event whose messages the
        bus does not take is never acknowledged: the error is reported and ends the worker, and another one does the
        event again.
        """
        steps: list[Step] = []
        written: list[asyncio.Future[Any]] = []
        for step in decided:
            steps.append(step)
            written += self._tables.apply(step.writes, partition)
            self._tables.end(step.ends)
        if not any(step.ends or step.forget for step in steps):
            try:
                for step in steps:
                    for output in step.outputs:
                        written.append(await self._send(output))
            except Exception as error:
                self._on_error(error)
                return
            self._finish_after(entry, written)
            return
        # The task runs in a copy of this context, where Faust keeps the event that allows changes of tables.
        task = asyncio.create_task(self._end(entry, steps, written, partition))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._on_error(error)

    def _finish_after(self, entry: Entry, futures: list["asyncio.Future[Any]"]) -> None:
        left = len(futures)
        if not left:
            self._ledger.finish(entry)
            return

        def confirmed(future: "asyncio.Future[Any]") -> None:
            nonlocal left
            if future.cancelled():
                return
            if error := future.exception():
                self._on_error(error)
                return
            left -= 1
            if not left:
                self._ledger.finish(entry)

        for future in futures:
            future.add_done_callback(confirmed)

    async def _end(
        self, entry: Entry, steps: Sequence[Step], written: list["asyncio.Future[Any]"], partition: int
    ) -> None:
        # Only what is written down is told: another worker must come to the same ends.
        await self._producer.all_acked(written)
        ending = [waiter for step in steps for waiter in step.ends]
        await self._write((waiter_write(waiter) for waiter in ending if waiter.end), partition)
        sent: list[asyncio.Future[Any]] = []
        for step in steps:
            for number, output in enumerate(step.outputs, start=1):
                sent.append(await self._send(output))
                if number % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                if len(sent) >= _WINDOW:
                    await self._producer.all_acked(sent)
                    sent.clear()
        await self._producer.all_acked(sent)
        await self._write((told_write(waiter, time.time()) for waiter in ending), partition)
        await self._producer.all_acked([future for step in steps for future in self._forget(step, partition)])
        self._ledger.finish(entry)

    async def _write(self, writes: Iterable[Write], partition: int) -> None:
        sent: list[asyncio.Future[Any]] = []
        for number, write in enumerate(writes, start=1):
            sent += self._tables.apply((write,), partition)
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if len(sent) >= _WINDOW:
                await self._producer.all_acked(sent)
                sent.clear()
        await self._producer.all_acked(sent)

    def _forget(self, step: Step, partition: int) -> list["asyncio.Future[Any]"]:
        if step.forget is None:
            return []
        fingerprint, job_id = step.forget
        row = self._tables.synthesis(fingerprint)
        # A request that came meanwhile has begun a new synthesis under the same fingerprint.
        if row is None or row.state != "failed" or row.job_id != job_id:
            return []
        return self._tables.apply((Write("syntheses", fingerprint.encode(), None),), partition)

    async def _send(self, output: Output) -> "asyncio.Future[Any]":
        if output.topic == topics.DEAD_LETTERS:
            _report(output)
        elif output.topic in (topics.ADMITTED, topics.COMPLETED):
            _note(output)
        try:
            return await self._producer.send(output.topic, output.message, partition=output.partition)
        except MessageSizeTooLargeError:
            if output.topic != topics.DEAD_LETTERS:
                raise
            # Whatever a sender put into key and headers, its message must not stop the worker: the facts are kept,
            # the message itself stays whole at the offset they name.
            return await self._producer.send(output.topic, facts_only(output.message))


def facts_only(message: Message) -> Message:
    """A dead letter that fits: our own headers, and the beginnings of key and value."""
    own = tuple((name, value) for name, value in message.headers if name.startswith("voxbus_dlq_"))
    cut = tuple((name, b"true" if name == "voxbus_dlq_truncated" else value) for name, value in own)
    return Message((message.key or b"")[:_KEPT_BYTES] or None, (message.value or b"")[:_KEPT_BYTES], cut)


def _note(output: Output) -> None:
    """One line when a request is admitted and one at its end; told again after a crash, it is written again."""
    trace = trace_id(context_of(output.message.headers).traceparent)
    said = json.loads(output.message.value or b"{}")
    if output.topic == topics.COMPLETED:
        said, status = said["data"], said["data"]["status"]
        _log.info(
            "request ended",
            request_id=said["request_id"],
            fingerprint=said.get("fingerprint"),
            trace_id=trace,
            status=status,
            code=(said.get("error") or {}).get("code"),
        )
    elif "spec" in said:  # else a cancellation
        _log.info(
            "request admitted",
            request_id=said["request_id"],
            fingerprint=said["fingerprint"],
            trace_id=trace,
            text=said["spec"]["text"],  # left out by the log unless VOXBUS_LOG__TEXTS asks for it
        )


def _report(output: Output) -> None:
    letter = read_dead_letter(output.message.headers)
    metrics.DEAD_LETTERED.labels(letter.stage, letter.code).inc()
    _log.warning(
        "dead letter",
        code=letter.code,
        reason=letter.message,
        pointer=letter.pointer,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
    )
