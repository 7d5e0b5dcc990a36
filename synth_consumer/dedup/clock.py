"""What the clock leads to: rows expire, silent syntheses are driven again or given up. Pure."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.codes import AudioFormat, ErrorCode
from schemas.completions import ErrorInfo
from synth_consumer.dedup import ends, orders
from synth_consumer.dedup.ends import Asker
from synth_consumer.dedup.orders import Policy, View, synthesis_write
from synth_consumer.dedup.rows import DeliveryRow, RequestRow, SynthesisRow, TableName, TranscodeOrder, WaiterRow
from synth_consumer.dedup.settlement import give_up, redriven
from synth_consumer.dedup.steps import Output, Step, Write


def due_at(row: RequestRow | SynthesisRow | WaiterRow | DeliveryRow) -> float:
    """When the clock must look at a row."""
    if isinstance(row, RequestRow | DeliveryRow):
        return row.remove_at
    if isinstance(row, WaiterRow):
        return row.remove_at or (0.0 if row.end else row.expires_at)
    return min([row.due_at, *(order.due_at for order in row.orders.values())])


@dataclass(slots=True)
class Agenda:
    """When to look at which row of one partition. A row that was written again meanwhile is simply looked at twice."""

    _heap: list[tuple[float, TableName, bytes]] = field(default_factory=list)

    def add(self, at: float, table: TableName, key: bytes) -> None:
        """Look at this row then."""
        heapq.heappush(self._heap, (at, table, key))

    def due(self, now: float, limit: int) -> Iterator[tuple[TableName, bytes]]:
        """Rows whose moment has come, at most `limit` of them."""
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                return
            _, table, key = heapq.heappop(self._heap)
            yield table, key

    @property
    def next_at(self) -> float:
        """When the first row is due; never, when there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def drop(self, table: TableName) -> None:
        """Forget all looks at one table's rows."""
        self._heap = [entry for entry in self._heap if entry[1] != table]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)


def on_request_due(key: bytes, row: RequestRow, *, now: float) -> Step | None:
    """A request nobody can ask about any more is forgotten; None when it is too early."""
    if row.remove_at > now:
        return None
    asker = Asker(key.decode(), row.accepted_at, row.fingerprint)
    # Every accepted request ends. This one should have long ago; who polls it is not left waiting.
    told = () if row.state.terminal else tuple(ends.expired(asker, now=now))
    return Step("ticked", (Write("requests", key, None),), told)


def on_waiter_due(view: View, row: WaiterRow, *, now: float) -> Step | None:
    """A waiter past its time is told so; None when it is too early."""
    if due_at(row) > now:
        return None
    if row.remove_at:
        return Step("ticked", (Write("waiters", row.key, None),))
    if row.end is not None:
        # Left by a worker that was killed while it told this end.
        return Step(row.end, outputs=ends.told((row,), now=now), ends=(row,))
    synthesis = view.synthesis(row.fingerprint)
    stored = synthesis.stored if synthesis else None
    if stored is not None and row.format in stored.renditions:
        # So was this one; it may have been told, or not.
        told = ends.completed(Asker.of(row), stored, row.format, cached=row.cached, now=now)
        return Step("settled", outputs=told, ends=(row,))
    late = ends.marked((row,), None)
    return Step("expired", outputs=ends.told(late, now=now), ends=late)


def on_synthesis_due(view: View, row: SynthesisRow, policy: Policy, *, now: float) -> Step | None:
    """A stored synthesis is forgotten, a silent one driven again or given up; None when it is too early."""
    if due_at(row) > now:
        return None
    if row.stored is not None:
        return _stored_due(view, row, policy, now)
    theirs = tuple(view.waiters(row.fingerprint))
    alive = max((waiter.expires_at for waiter in theirs), default=0.0)
    # One that says `failed` here was left by a worker that was killed while it told the waiters.
    if row.state == "pending" and alive > now and row.drive < policy.max_drives:
        return redriven(row, policy, now=now, deadline_at=alive)
    if row.state == "pending" and alive > now and not row.heard:
        # Who joined may wait longer than the one that caused the job, and it may still stand in a queue.
        return Step("ticked", (synthesis_write(row.model_copy(update={"due_at": alive})),))
    message = "no audio came, although the work was given out again" if row.drive > 1 else "no audio came in time"
    return give_up(row, theirs, _deadline(message, row.drive), now=now)


def _stored_due(view: View, row: SynthesisRow, policy: Policy, now: float) -> Step:
    assert row.stored is not None  # the caller's condition
    if row.due_at <= now and not view.waiting(row.fingerprint):
        return Step("ticked", (Write("syntheses", row.fingerprint.encode(), None),))
    waiting = tuple(view.waiters(row.fingerprint))
    kept: dict[AudioFormat, TranscodeOrder] = {}
    told: list[Output] = []
    theirs: tuple[WaiterRow, ...] = ()
    for wanted, order in row.orders.items():
        asking = tuple(waiter for waiter in waiting if waiter.format == wanted)
        if order.due_at > now:
            kept[wanted] = order
        elif asking and order.error is None and order.drive < policy.max_drives:
            drive = order.drive + 1
            kept[wanted] = TranscodeOrder(job_id=order.job_id, due_at=policy.due(now, drive), drive=drive)
            told.append(orders.transcode(row, row.stored, order.job_id, (wanted,), now, row.traceparent))
        elif asking:
            error = order.error or _deadline("the file format was not made in time", policy.max_drives)
            # Stays due, and goes at the next look, when all who ask are marked.
            kept[wanted] = order.model_copy(update={"error": error})
            theirs += ends.marked(asking, error)
    # With someone still waiting the row stays; they are looked at first when their own time comes.
    moved = {"orders": kept, "due_at": max(row.due_at, now + 60.0) if row.due_at <= now else row.due_at}
    told.extend(ends.told(theirs, now=now))
    return Step("ticked", (synthesis_write(row.model_copy(update=moved)),), tuple(told), theirs)


def _deadline(message: str, attempts: int) -> ErrorInfo:
    return ErrorInfo(code=ErrorCode.DEADLINE_EXCEEDED, message=message, attempts=attempts)
