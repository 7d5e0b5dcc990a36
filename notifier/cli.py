"""`voxbus webhooks`: what became of deliveries, and another try."""

import json
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from infra.errors import UserError
from infra.settings import KafkaSettings, load
from notifier import endpoint_commands
from notifier.endpoint_states import endpoint_states
from notifier.history import Choice, attempts, last_attempts
from notifier.named_endpoint import NamedEndpoint
from notifier.probe import send_test
from notifier.replay import Attempted, Missed, Replayed, Selection
from notifier.replay import replay as put_on_their_way
from notifier.settings import NotifySettings
from notifier.stack import FILE_VARIABLE, kafka, known_endpoint, named_endpoints, run, stack_option, stack_secret
from schemas.deliveries import DeliveryAttempted, DeliveryState


@click.group()
def webhooks() -> None:
    """List, show and repeat deliveries; try out a receiver.

    \b
    Examples:
      voxbus webhooks list --state dead_lettered
      voxbus webhooks show REQUEST_ID
      voxbus webhooks replay REQUEST_ID
      voxbus webhooks replay --endpoint hooks.example.com:443 --since 2026-11-01T00:00:00+00:00
      voxbus webhooks replay --endpoint crm --since 2026-11-01T00:00:00+00:00
      voxbus webhooks test http://127.0.0.1:8088/
      voxbus webhooks endpoints
      voxbus webhooks enable crm
    """


webhooks.add_command(endpoint_commands.list_endpoints)
webhooks.add_command(endpoint_commands.enable)
webhooks.add_command(endpoint_commands.disable)


_ENDED = [str(state) for state in DeliveryState if state is not DeliveryState.RETRYING]
_state = click.option("--state", type=click.Choice([str(s) for s in DeliveryState]), help="Only those in this state.")
_end = click.option("--state", type=click.Choice(_ENDED), help="Only those that ended so.")
_endpoint = click.option("--endpoint", metavar="HOST:PORT|NAME", help="Only those to this endpoint.")
_since = click.option("--since", metavar="TIME", help="Only those last attempted from this moment on (RFC 3339).")
_until = click.option("--until", metavar="TIME", help="Only those last attempted before this moment (RFC 3339).")


@webhooks.command(name="list")
@_state
@_endpoint
@_since
@_until
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@stack_option
def list_deliveries(
    state: str | None,
    endpoint: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
    endpoints: Path | None,
) -> None:
    """Show deliveries by their last attempt, the newest at the end."""
    choice = _choice((), state, endpoint, since, until)
    found = run(last_attempts(kafka(endpoints), choice, limit))
    if not found and not as_json:
        click.echo("no deliveries", err=True)
    else:
        _show(found, as_json)


@webhooks.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@stack_option
def show(request_id: str, as_json: bool, endpoints: Path | None) -> None:
    """Show every attempt to deliver one request's completion."""
    events = run(_attempts_of(request_id, kafka(endpoints)))
    if not events:
        raise UserError(f"no attempt to deliver {request_id}; it has no callback, or none was made yet")
    _show(sorted(events, key=lambda event: event.at), as_json)


@webhooks.command()
@click.argument("request_ids", nargs=-1, metavar="[REQUEST_ID]...")
@_end
@_endpoint
@_since
@_until
@stack_option
def replay(
    request_ids: tuple[str, ...],
    state: str | None,
    endpoint: str | None,
    since: str | None,
    until: str | None,
    endpoints: Path | None,
) -> None:
    """Deliver completions again, from the first attempt on, under their own webhook-id.

    Names requests, or chooses them by the other options. A receiver that has them already knows them by that id.
    A delivery that is still retrying is left alone.

    A named endpoint without --state gets what it wants of the completions published in the chosen time and was not
    given, also of the time when it was disabled. What is on its way for the first time at this moment may come twice.
    """
    if not request_ids and not any((state, endpoint, since, until)):
        raise click.UsageError("name the requests, or choose them by --state, --endpoint, --since or --until")
    choice = _choice(request_ids, state, endpoint, since, until)
    bus = kafka(endpoints)
    if endpoint is not None:
        _refuse_disabled(endpoint, bus)
    done = run(put_on_their_way(bus, _selection(choice)))
    alone = {"still_retrying": len(done.retrying)} if done.retrying else {}
    click.echo(json.dumps({"replayed": done.deliveries, **alone}))
    _complain(done, request_ids)


@webhooks.command()
@click.argument("receiver", metavar="URL|NAME")
@stack_option
def test(receiver: str, endpoints: Path | None) -> None:
    """Post one signed test event to a receiver, as the notifier would, and show its answer.

    The receiver is an address, or a named endpoint, which is sent its own headers and signed with its own secrets.
    Goes to loopback, so that a receiver on this machine can be tried.
    """
    settings = load(NotifySettings).notifier
    name, url, endpoint = None, receiver, None
    if "://" not in receiver:
        name, endpoint = receiver, known_endpoint(receiver, _endpoints_file())
        url = endpoint.url
        if endpoint.topic:
            raise UserError(f"{name} is a topic: consume {endpoint.topic} to see what comes")
    secret = settings.signing_secret.get_secret_value()
    if not secret and not (endpoint and endpoint.secrets):
        secret = stack_secret(endpoints)
    result = run(send_test(settings, secret, url, name, endpoint))
    answer = {"status": result.status, "latency_ms": round(result.latency_s * 1000), "error": result.error}
    click.echo(json.dumps({name: value for name, value in answer.items() if value is not None}))
    if result.error:
        raise UserError(f"not delivered: {result.error}")


async def _attempts_of(request_id: str, bus: KafkaSettings) -> list[DeliveryAttempted]:
    return [event async for event in attempts(bus) if event.request_id == request_id]


def _endpoints_file() -> dict[str, NamedEndpoint]:
    known = named_endpoints()
    if known is None:
        raise UserError(f"neither an address nor a named endpoint: {FILE_VARIABLE} is not set")
    return known


def _selection(choice: Choice) -> Selection:
    known = named_endpoints() or {}
    name = choice.endpoint
    if name in known and choice.state is None and choice.request_ids is None:
        return Missed(name, known[name], choice)
    return Attempted(choice)


def _refuse_disabled(name: str, bus: KafkaSettings) -> None:
    state = run(endpoint_states(bus)).get(name)
    if state is not None and state.disabled:
        raise UserError(f"the endpoint {name} is disabled ({state.reason}); first: voxbus webhooks enable {name}")


def _complain(done: Replayed, request_ids: tuple[str, ...]) -> None:
    """Say of the requests that were named why they were not replayed."""
    complaints = []
    if alone := sorted(done.retrying.intersection(request_ids)):
        complaints.append(f"still retrying, the next attempt comes by itself: {', '.join(alone)}")
    if done.missing:
        complaints.append(f"no completion with a callback is kept of: {', '.join(sorted(done.missing))}")
    if complaints:
        raise UserError("; ".join(complaints))


def _choice(
    request_ids: tuple[str, ...], state: str | None, endpoint: str | None, since: str | None, until: str | None
) -> Choice:
    return Choice(
        frozenset(request_ids) or None,
        DeliveryState(state) if state else None,
        endpoint,
        _moment(since, "--since"),
        _moment(until, "--until"),
    )


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no moment such as 2026-11-23T12:00:00+00:00", param_hint=option
        ) from None


def _show(events: list[DeliveryAttempted], as_json: bool) -> None:
    if as_json:
        for event in events:
            click.echo(event.model_dump_json(exclude_none=True))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("request_id", "attempt", "state", "at", "endpoint", "status", "ms", "error", "next"):
        table.add_column(title, overflow="fold")
    for event in events:
        following = event.next_attempt_at.isoformat(timespec="seconds") if event.next_attempt_at else ""
        table.add_row(
            event.request_id,
            str(event.attempt),
            str(event.state),
            event.at.isoformat(timespec="seconds"),
            f"{event.endpoint} {event.host}" if event.endpoint else event.host,
            str(event.http_status or ""),
            str(event.latency_ms),
            event.error or "",
            following,
        )
    Console(width=None if Console().is_terminal else 200, markup=False, highlight=False).print(table)
