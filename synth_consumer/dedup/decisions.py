"""New, join or stored: what an admitted request leads to. Pure.

A synthesis has one row. While it is pending there is one job in flight for its fingerprint; every further request
for it becomes a waiter with a row of its own, so that joining costs the same for the first and the ten-thousandth.
"""

from schemas.codes import State
from schemas.fingerprint import derived_seed
from schemas.requests import SynthesisAdmitted
from synth_consumer.dedup import ends, orders
from synth_consumer.dedup.ends import Asker
from synth_consumer.dedup.orders import TOLD_KEPT_S, Policy, View, synthesis_write, told_write, waiter_write
from synth_consumer.dedup.rows import Stored, SynthesisRow, TranscodeOrder, WaiterRow
from synth_consumer.dedup.steps import Step, derived_id


def on_admitted(
    view: View, request: SynthesisAdmitted, trace: str | None, policy: Policy, *, now: float, ref: str
) -> Step:
    """A request came through the door.

    Args:
        view: rows of its fingerprint.
        request: the request.
        trace: its `traceparent`.
        policy: clocks and bounds.
        now: seconds since 1970.
        ref: names the message, so that its ids come out the same when it is delivered again.
    """
    row = view.synthesis(request.fingerprint)
    known = view.waiter(request.fingerprint, request.request_id)
    if known is not None:
        return _repeat(row, known, now)
    waiter = _waiter_of(request, trace)
    outdated = row is None or row.state == "failed" or _outdated(view, row, waiter.accepted_at)
    if row is not None and row.stored is not None and not outdated and request.format in row.stored.renditions:
        # Before the look at the clock: delivered again after an outage, it comes to the same end.
        told = ends.completed(Asker.of(waiter), row.stored, request.format, cached=True, now=now)
        # As long as messages from before its time was over come again, it stays.
        late = row.model_copy(update={"due_at": now + TOLD_KEPT_S})
        return Step("stored", (synthesis_write(late),) if row.due_at <= now else (), told)
    if waiter.expires_at <= now:
        expired = ends.marked((waiter,), None)
        return Step("expired", outputs=ends.told(expired, now=now), ends=expired)
    if row is None or outdated:
        return _new(request, waiter, policy, now=now, ref=ref)
    if row.stored is None:
        return _join(row, waiter, now)
    return _await_rendition(row, row.stored, waiter, policy, now=now, ref=ref)


def on_cancelled(view: View, waiter: WaiterRow, *, now: float) -> Step:
    """A request is not wanted any more. Its synthesis goes on as long as anybody else waits for it.

    Args:
        view: rows of its fingerprint.
        waiter: the request; marked as cancelled already when this is done again after a crash.
        now: seconds since 1970.
    """
    if waiter.remove_at or waiter.end not in {None, "cancelled"}:
        return Step("ignored")  # it has ended, or is about to be told so
    gone = ends.marked((waiter,), None, cancelled=True)
    told = tuple(ends.told(gone, now=now))
    row = view.synthesis(waiter.fingerprint)
    others = any(other.request_id != waiter.request_id for other in view.waiters(waiter.fingerprint))
    # `failed` is what a first telling, cut short, has written.
    stopped = row is not None and row.state in {"pending", "failed"} and row.job_id == waiter.job_id
    if row is None or not stopped or others:
        return Step("cancelled", outputs=told, ends=gone)
    # As with a failure: who comes from now on begins a new synthesis.
    ended = row.model_copy(update={"state": "failed", "spec": None})
    forget = (row.fingerprint, row.job_id)
    return Step("cancelled", (synthesis_write(ended),), (*told, orders.stop(row)), gone, forget=forget)


def _outdated(view: View, row: SynthesisRow, accepted_at: float) -> bool:
    # Whoever still waits for one of its formats keeps a stored synthesis alive.
    return row.state == "stored" and row.due_at <= accepted_at and not view.waiting(row.fingerprint)


def _waiter_of(request: SynthesisAdmitted, trace: str | None) -> WaiterRow:
    return WaiterRow(
        fingerprint=request.fingerprint,
        request_id=request.request_id,
        job_id="",
        format=request.format,
        accepted_at=request.accepted_at.timestamp(),
        expires_at=request.expires_at.timestamp(),
        callback_url=request.callback_url,
        metadata=request.metadata,
        traceparent=trace,
    )


def _repeat(row: SynthesisRow | None, waiter: WaiterRow, now: float) -> Step:
    """Delivered again: what the first delivery may not have published before a crash is published once more."""
    if waiter.remove_at:
        # Its message still comes again, so its end is remembered for longer.
        return Step("repeat", (told_write(waiter, now),))
    if row is None or row.state == "failed" or waiter.end is not None:
        return Step("repeat")
    if row.stored is None:
        caused = row.request_id == waiter.request_id and row.job_id == waiter.job_id
        return Step("repeat", outputs=(orders.job(row, now),) if caused else ())
    order = row.orders.get(waiter.format)
    if order is None or order.error is not None or order.job_id != waiter.job_id:
        return Step("repeat")
    again = orders.transcode(row, row.stored, order.job_id, (waiter.format,), now, waiter.traceparent)
    return Step("repeat", outputs=(again,))


def _new(request: SynthesisAdmitted, waiter: WaiterRow, policy: Policy, *, now: float, ref: str) -> Step:
    seed = request.spec.seed if request.spec.seed is not None else derived_seed(request.fingerprint)
    row = SynthesisRow(
        fingerprint=request.fingerprint,
        state="pending",
        job_id=derived_id("job", ref),
        request_id=request.request_id,
        due_at=policy.due_in_queue(now, 1, waiter.expires_at),
        spec=request.spec.model_copy(update={"seed": seed}),
        formats=(request.format,),
        priority=request.priority,
        deadline_at=waiter.expires_at,
        traceparent=waiter.traceparent,
    )
    waiter = waiter.model_copy(update={"job_id": row.job_id})
    status = ends.progressed(Asker.of(waiter), row.stage, row.percent, now=now)
    return Step("new", (synthesis_write(row), waiter_write(waiter)), (orders.job(row, now), status))


def _join(row: SynthesisRow, waiter: WaiterRow, now: float) -> Step:
    waiter = waiter.model_copy(update={"job_id": row.job_id})
    status = ends.progressed(Asker.of(waiter), row.stage, row.percent, now=now)
    return Step("join", (waiter_write(waiter),), (status,))


def _await_rendition(
    row: SynthesisRow, stored: Stored, waiter: WaiterRow, policy: Policy, *, now: float, ref: str
) -> Step:
    waiter = waiter.model_copy(update={"cached": True})
    status = ends.progressed(Asker.of(waiter), State.QUEUED, 5, now=now)
    order = row.orders.get(waiter.format)
    if order is not None and order.error is None:
        return Step("transcode", (waiter_write(waiter.model_copy(update={"job_id": order.job_id})),), (status,))
    order = TranscodeOrder(job_id=derived_id("transcode", ref), due_at=policy.due(now, 1))
    waiter = waiter.model_copy(update={"job_id": order.job_id})
    row = row.model_copy(update={"orders": {**row.orders, waiter.format: order}})
    asked = orders.transcode(row, stored, order.job_id, (waiter.format,), now, waiter.traceparent)
    return Step("transcode", (synthesis_write(row), waiter_write(waiter)), (asked, status))
