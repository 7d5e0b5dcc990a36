"""`voxbus audit`: reads the logs of the bus and the bucket, and lets `producers.audit` judge."""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from aiokafka import ConsumerRecord

from infra.lifecycle import Deadline
from producers.arrivals import Arrival
from producers.audit import Ledger, ObjectFacts, Report
from producers.bucket import key_of, open_bucket
from producers.connection import ClientSettings, client_settings, endpoints_option
from producers.drafts import usable_id
from producers.terminal import note, progress_bar, run
from producers.topic_log import TopicLog, headers_of, topic_log
from schemas import topics
from schemas.base import utc_now
from schemas.codec import DecodeError, context_of, decode, event_type
from schemas.completions import RequestCompleted, RequestStatus
from schemas.dead_letters import read_dead_letter
from schemas.deliveries import DeliveryAttempted
from schemas.requests import CancelAdmitted, CancelRequested, SynthesisAdmitted, SynthesisRequested

_AGAIN_S = 0.5
# Along the road, so that what is read later has had the time to follow from what was read before.
_ROAD = (topics.REQUESTS, topics.ADMITTED, topics.STATUS, topics.COMPLETED, topics.DELIVERIES, topics.DEAD_LETTERS)

# Kept equally long, so that what one of them has forgotten the others may have too. Admissions are kept a day only, and
# prove nothing that a status does not; dead letters outlast all.
_KEPT_ALIKE = {topics.REQUESTS, topics.STATUS, topics.COMPLETED, topics.DELIVERIES}
# Dedup refuses what cannot be read as soon as it reads it; this allows for an hour's backlog.
_UNREADABLE_FOR = timedelta(hours=1)


@click.command()
@click.option("--fast", is_flag=True, help="Ask for the objects' sizes only, instead of reading them.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="S",
              help="Look again for so many seconds while something is still open.")  # fmt: skip
@endpoints_option
def audit(fast: bool, wait_s: float, endpoints: Path | None) -> None:
    """Check that nothing was lost: every request one end, every completed one its object, every callback its delivery.

    Reads the topics from their first kept record to their present end, and the objects in the bucket. Requests so old
    that a topic may have forgotten some of them are counted, not judged. Prints counts
    as JSON; exit status 1, and the request ids, when something is found. Requests that have no end yet, and time left
    until they expire, are listed as open and are no finding; with --wait they are waited for, and have to end.

    \b
    Examples:
      voxbus audit
      voxbus audit --wait 30 --fast
      voxbus audit --endpoints /var/lib/voxbus/endpoints.json | jq .findings
    """
    report = run(audited(client_settings(endpoints), fast=fast, wait_s=wait_s))
    click.echo(json.dumps(report.as_json(), indent=2))
    if not report.good:
        found = ", ".join(f"{len(ids)} {kind}" for kind, ids in report.findings.items())
        note(f"voxbus: audit found {found}")
    if report.open:
        note(f"voxbus: {len(report.open)} requests have no end yet" + (f" after {wait_s:g} s" if wait_s else ""))
    if not report.good or (wait_s and report.open):
        sys.exit(1)


async def audited(settings: ClientSettings, *, fast: bool = False, wait_s: float = 0.0) -> Report:
    """Read everything and judge, again and again until all is good and at its end, or `wait_s` has passed.

    Raises:
        UserError: Kafka or the object store does not answer.
    """
    clock = Deadline(wait_s)
    while True:
        report = await _audited_once(settings, fast=fast)
        if (report.good and not report.open) or clock.passed:
            return report
        await asyncio.sleep(min(_AGAIN_S, clock.remaining_s))


async def _audited_once(settings: ClientSettings, *, fast: bool) -> Report:
    with progress_bar() as progress:
        task = progress.add_task("reading the bus", total=len(_ROAD) + 1)
        ledger = Ledger()
        async with topic_log(settings.kafka, client_id="voxbus-audit") as log:
            for topic in _ROAD:
                await _fold(log, topic, ledger)
                progress.advance(task)
        progress.update(task, description="reading the bucket")
        return ledger.report(await _objects(settings, ledger.expected_objects(), read=not fast), now=utc_now())


async def _fold(log: TopicLog, topic: str, ledger: Ledger) -> None:
    take = _TAKERS[topic]
    begun: set[int] = set()
    async for record in log.records(topic):
        if record.partition not in begun and record.offset > 0 and topic in _KEPT_ALIKE:
            ledger.kept_since(_written(record))
        begun.add(record.partition)
        try:
            take(ledger, record)
        except (DecodeError, ValueError) as error:
            note(f"{topic}/{record.partition} offset {record.offset} is not readable: {error}")


async def _objects(settings: ClientSettings, urls: dict[str, str], *, read: bool) -> dict[str, ObjectFacts | None]:
    """By request id; many requests share one object, which is read once."""
    keys = {request_id: key_of(url, settings.s3) for request_id, url in urls.items()}
    wanted = {key for key in keys.values() if key is not None}
    if not wanted:
        return {}
    async with open_bucket(settings.s3) as bucket:
        facts = await bucket.facts(wanted, read=read)
    return {request_id: facts.get(key) if key else None for request_id, key in keys.items()}


def _written(record: ConsumerRecord) -> datetime:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)


def _take_request(ledger: Ledger, record: ConsumerRecord) -> None:
    headers = dict(headers_of(record))
    if event_type(headers.items()) == CancelRequested.ce_type:
        return
    if moved := headers.get("voxbus_moved"):
        ledger.arrivals.moved(moved.decode("ascii", "replace"))
    value, written = bytes(record.value or b""), _written(record)
    try:
        request = decode(SynthesisRequested, value)
        request_id, until = request.request_id, written + timedelta(seconds=request.expires_in_s)
    except DecodeError:
        request_id, until = usable_id(value), written + _UNREADABLE_FOR
    if request_id is None:
        ledger.arrivals.came(Arrival(record.partition, record.offset, value, until))
    else:
        ledger.written(request_id, written)
        ledger.requested(request_id, until)


def _take_admitted(ledger: Ledger, record: ConsumerRecord) -> None:
    if event_type(headers_of(record)) == CancelAdmitted.ce_type:
        return
    event = decode(SynthesisAdmitted, record.value)
    ledger.written(event.request_id, _written(record))
    ledger.admitted(event)


def _take_status(ledger: Ledger, record: ConsumerRecord) -> None:
    event = decode(RequestStatus, record.value)
    ledger.written(event.request_id, _written(record))
    ledger.status(event)


def _take_completed(ledger: Ledger, record: ConsumerRecord) -> None:
    callback = "callbackurl" in context_of(headers_of(record)).extensions
    data = decode(RequestCompleted, record.value).data
    ledger.written(data.request_id, _written(record))
    ledger.completed(data, callback=callback)


def _take_dead_letter(ledger: Ledger, record: ConsumerRecord) -> None:
    headers = headers_of(record)
    # The delivery to a named endpoint says nothing of the request's own callback.
    own = context_of(headers).extensions.get("endpoint", "callback") == "callback"
    ledger.dead_letter(read_dead_letter(headers), record.key if own else None)


_TAKERS: dict[str, Callable[[Ledger, ConsumerRecord], None]] = {
    topics.REQUESTS: _take_request,
    topics.ADMITTED: _take_admitted,
    topics.STATUS: _take_status,
    topics.COMPLETED: _take_completed,
    topics.DELIVERIES: lambda ledger, record: ledger.delivery(decode(DeliveryAttempted, record.value)),
    topics.DEAD_LETTERS: _take_dead_letter,
}
