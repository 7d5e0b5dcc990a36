"""What the outcomes of a synthesis lead to: ends for those who wait, further orders for what is missing. Pure."""

from collections.abc import Iterator
from itertools import islice

from schemas.codes import AudioFormat, ErrorCode, State
from schemas.completions import ErrorInfo
from schemas.outcomes import RenditionStored, StageProgress, StoredObject, SynthesisFailed
from synth_consumer.dedup import ends, orders
from synth_consumer.dedup.ends import Asker
from synth_consumer.dedup.orders import Policy, View, synthesis_write
from synth_consumer.dedup.rows import Stored, SynthesisRow, TranscodeOrder, WaiterRow
from synth_consumer.dedup.steps import Output, Step, derived_id

_ROAD = {state: number for number, state in enumerate(State)}


def on_rendition_stored(view: View, event: RenditionStored, policy: Policy, *, now: float, ref: str) -> Step:
    """Files are durable. Everyone whose format is there is told; what others asked for is ordered.

    It does not matter which job or take they came from: the sound is the same, and the first one counts.
    """
    row = view.synthesis(event.fingerprint)
    stored = _merged(row.stored if row else None, event)
    waiting = tuple(view.waiters(event.fingerprint))
    ready = tuple(waiter for waiter in waiting if waiter.format in stored.renditions)
    missing = {waiter.format for waiter in waiting} - set(stored.renditions)
    kept = {
        wanted: order
        for wanted, order in (row.orders if row else {}).items()
        if wanted in missing or (order.error is not None and wanted not in stored.renditions)
    }
    fresh = tuple(sorted(missing - set(kept)))
    job_id = derived_id("transcode", ref)
    ordered = {wanted: TranscodeOrder(job_id=job_id, due_at=policy.due(now, 1)) for wanted in fresh}
    first = row is None or row.stored is None
    settled = SynthesisRow(
        fingerprint=event.fingerprint,
        state="stored",
        job_id=row.job_id if row else event.job_id,
        request_id=row.request_id if row else "",
        due_at=now + policy.stored_ttl_s if first or row is None else row.due_at,
        stored=stored,
        orders=kept | ordered,
        traceparent=row.traceparent if row else None,
    )

    def told() -> Iterator[Output]:
        if fresh:
            yield orders.transcode(settled, stored, job_id, fresh, now, settled.traceparent)
        for waiter in ready:
            yield from ends.completed(Asker.of(waiter), stored, waiter.format, cached=waiter.cached, now=now)

    changed = row is None or settled != row
    return Step("settled", (synthesis_write(settled),) if changed else (), told(), ready)


def on_synthesis_failed(view: View, event: SynthesisFailed, policy: Policy, *, now: float) -> Step:
    """A synthesis, or some of its renditions, will not come. Nothing of a failed synthesis is kept."""
    row = view.synthesis(event.fingerprint)
    error = ErrorInfo(code=event.code, message=event.message, attempts=event.attempts)
    if row is not None and row.stored is not None:
        if not event.formats and any(order.job_id == event.job_id for order in row.orders.values()):
            return _master_lost(view, row, event, error, now)
        return _rendition_failed(view, row, event, error, now)
    if row is None or row.job_id != event.job_id:
        return Step("ignored")
    # All of them, whichever job they once joined: who waits without an end waits for the one that is under way.
    theirs = tuple(view.waiters(event.fingerprint))
    if event.formats:
        lost = ends.marked((waiter for waiter in theirs if waiter.format in event.formats), error)
        return Step("failed", outputs=ends.told(lost, now=now), ends=lost)
    if event.code is ErrorCode.DEADLINE_EXCEEDED and row.state == "pending":
        alive = max((waiter.expires_at for waiter in theirs), default=0.0)
        # The job carried the deadline of the request that caused it; others may wait longer.
        if alive > now and row.drive < policy.max_drives:
            return redriven(row, policy, now=now, deadline_at=alive)
    return give_up(row, theirs, error, now=now)


def on_progress(view: View, event: StageProgress, policy: Policy, *, now: float) -> Step:
    """A synthesis moved on: some of its waiters are told, and it is not driven again for a while."""
    row = view.synthesis(event.fingerprint)
    if row is None or event.state.terminal:
        return Step("ignored")
    if row.stored is not None:
        return _rendition_progress(view, row, event, policy, now)
    forward = event.percent > row.percent and _ROAD[event.state] >= _ROAD[row.stage]
    if row.state != "pending" or row.job_id != event.job_id or not (forward or not row.heard):
        return Step("ignored")
    moved: dict[str, object] = {"heard": True, "due_at": policy.due(now, row.drive)}
    if not forward:  # a later drive, which begins where an earlier one has been: it is alive
        return Step("progress", (synthesis_write(row.model_copy(update=moved)),))
    moved |= {"stage": event.state, "percent": event.percent}
    step = _told(view, event, policy, now)
    return Step("progress", (synthesis_write(row.model_copy(update=moved)),), step.outputs)


def redriven(row: SynthesisRow, policy: Policy, *, now: float, deadline_at: float) -> Step:
    """The same job once more, named as such."""
    drive = row.drive + 1
    due_at = policy.due_in_queue(now, drive, deadline_at)
    update = {"drive": drive, "due_at": due_at, "deadline_at": deadline_at, "heard": False}
    row = row.model_copy(update=update)
    return Step("redriven", (synthesis_write(row),), (orders.job(row, now),))


def give_up(row: SynthesisRow, waiters: tuple[WaiterRow, ...], error: ErrorInfo, *, now: float) -> Step:
    """Every waiter of the job is told, then the row goes.

    Until then it says `failed`, so that a request arriving meanwhile begins a new synthesis instead of joining this.
    """
    failed = row.model_copy(update={"state": "failed", "spec": None})
    # Past its time a request is expired, whichever of its clocks comes first.
    late = ends.marked((waiter for waiter in waiters if waiter.expires_at <= now), None)
    theirs = late + ends.marked((waiter for waiter in waiters if waiter.expires_at > now), error)
    told = ends.told(theirs, now=now)
    return Step("failed", (synthesis_write(failed),), told, theirs, forget=(row.fingerprint, row.job_id))


def _master_lost(view: View, row: SynthesisRow, event: SynthesisFailed, error: ErrorInfo, now: float) -> Step:
    """The stored audio cannot be read any more, so nothing can be made of it: the next request speaks it anew."""
    lost = row.model_copy(update={"job_id": event.job_id, "stored": None, "orders": {}})
    return give_up(lost, tuple(view.waiters(event.fingerprint)), error, now=now)


def _rendition_failed(view: View, row: SynthesisRow, event: SynthesisFailed, error: ErrorInfo, now: float) -> Step:
    lost = {
        wanted: order.model_copy(update={"error": error, "due_at": now})
        for wanted, order in row.orders.items()
        if order.job_id == event.job_id and wanted in event.formats
    }
    if not lost:
        return Step("ignored")
    theirs = ends.marked((waiter for waiter in view.waiters(event.fingerprint) if waiter.format in lost), error)
    # The orders stay until the clock finds nobody waiting for them: killed before all are marked, it tells the rest.
    failed = row.model_copy(update={"orders": row.orders | lost})
    return Step("failed", (synthesis_write(failed),), ends.told(theirs, now=now), theirs)


def _rendition_progress(view: View, row: SynthesisRow, event: StageProgress, policy: Policy, now: float) -> Step:
    moved = {
        wanted: order.model_copy(update={"percent": event.percent})
        for wanted, order in row.orders.items()
        if order.job_id == event.job_id and order.percent < event.percent
    }
    if not moved:
        return Step("ignored")
    step = _told(view, event, policy, now)
    return Step("progress", (synthesis_write(row.model_copy(update={"orders": row.orders | moved})),), step.outputs)


def _told(view: View, event: StageProgress, policy: Policy, now: float) -> Step:
    theirs = (waiter for waiter in view.waiters(event.fingerprint) if waiter.job_id == event.job_id)
    some = islice(theirs, policy.progress_fan_out)
    told = tuple(ends.progressed(Asker.of(waiter), event.state, event.percent, now=now) for waiter in some)
    return Step("progress", outputs=told)


def _merged(before: Stored | None, event: RenditionStored) -> Stored:
    files: dict[AudioFormat, StoredObject] = {event.master.format: event.master}
    files |= {file.format: file for file in event.renditions}
    if before is not None:
        files |= before.renditions
        return before.model_copy(update={"renditions": files})
    return Stored(
        master=event.master,
        renditions=files,
        duration_s=event.duration_s,
        sample_rate=event.sample_rate,
        engine=event.engine,
        truncated=event.truncated,
        queued_ms=event.queued_ms,
        synthesis_ms=event.synthesis_ms,
        upload_ms=event.upload_ms,
    )
