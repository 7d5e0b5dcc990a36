"""`voxbus webhooks`: what became of deliveries, and another try."""

import asyncio
import json
import logging
import os
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from infra.embedded import endpoints as endpoints_file
from infra.errors import UserError
from infra.settings import KafkaSettings, load
from notifier.endpoint_states import change_endpoint, endpoint_states
from notifier.history import Choice, History, histories, replay_completions
from notifier.named_endpoint import read_endpoints
from notifier.probe import send_test
from notifier.settings import NotifySettings
from schemas.deliveries import DeliveryAttempted, DeliveryState

_BUS_VARIABLE = "VOXBUS_KAFKA__BOOTSTRAP_SERVERS"
_SECRET_VARIABLE = "VOXBUS_NOTIFIER__SIGNING_SECRET"  # noqa: S105  # the variable's name
# A person waits in front of these commands.
_START_TIMEOUT_S = 5.0

T = TypeVar("T")


@click.group()
def webhooks() -> None:
    """List, show and repeat deliveries; try out a receiver.

    \b
    Examples:
      voxbus webhooks list --state dead_lettered
      voxbus webhooks show REQUEST_ID
      voxbus webhooks replay REQUEST_ID
      voxbus webhooks replay --endpoint hooks.example.com:443 --since 2026-11-01T00:00:00+00:00
      voxbus webhooks test http://127.0.0.1:8088/
    """


_endpoints = click.option(
    "--endpoints",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Written by `voxbus up`; default {endpoints_file.DEFAULT_PATH}, unless {_BUS_VARIABLE} is set.",
)
_state = click.option("--state", type=click.Choice([str(s) for s in DeliveryState]), help="Only those in this state.")
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
@_endpoints
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
    found = _run(histories(_kafka(endpoints), choice))[-limit:]
    if as_json:
        for history in found:
            click.echo(history.last.model_dump_json(exclude_none=True))
    elif found:
        _print([history.last for history in found])
    else:
        click.echo("no deliveries", err=True)


@webhooks.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_endpoints
def show(request_id: str, as_json: bool, endpoints: Path | None) -> None:
    """Show every attempt to deliver one request's completion."""
    found: list[History] = _run(histories(_kafka(endpoints), Choice(frozenset({request_id}))))
    if not found:
        raise UserError(f"no attempt to deliver {request_id}; it has no callback, or none was made yet")
    events = sorted((event for history in found for event in history.events), key=lambda event: event.at)
    if as_json:
        for event in events:
            click.echo(event.model_dump_json(exclude_none=True))
    else:
        _print(events)


@webhooks.command()
@click.argument("request_ids", nargs=-1, metavar="[REQUEST_ID]...")
@_state
@_endpoint
@_since
@_until
@_endpoints
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
    """
    if not request_ids and not any((state, endpoint, since, until)):
        raise click.UsageError("name the requests, or choose them by --state, --endpoint, --since or --until")
    choice = _choice(request_ids, state, endpoint, since, until)
    replayed = _run(replay_completions(_kafka(endpoints), choice))
    click.echo(json.dumps({"replayed": len(replayed)}))
    missing = sorted(set(request_ids) - replayed)
    if missing:
        raise UserError(f"no completion with a callback is kept of: {', '.join(missing)}")


@webhooks.command()
@click.argument("url")
@_endpoints
def test(url: str, endpoints: Path | None) -> None:
    """Post one signed test event to a receiver, as the notifier would, and show its answer.

    Goes to loopback, so that a receiver on this machine can be tried.
    """
    settings = load(NotifySettings).notifier
    secret = settings.signing_secret.get_secret_value() or _stack_secret(endpoints)
    result = _run(send_test(settings, secret, url))
    answer = {"status": result.status, "latency_ms": round(result.latency_s * 1000), "error": result.error}
    click.echo(json.dumps({name: value for name, value in answer.items() if value is not None}))
    if result.error:
        raise UserError(f"not delivered: {result.error}")


@webhooks.command(name="endpoints")
@_endpoints
def list_endpoints(endpoints: Path | None) -> None:
    """Show every named endpoint that was ever disabled, enabled, or failing for a while; one JSON object a line."""
    for name, state in sorted(_run(endpoint_states(_kafka(endpoints))).items()):
        click.echo(json.dumps({"name": name, **state.model_dump(mode="json", exclude_none=True, exclude={"name"})}))


@webhooks.command()
@click.argument("name")
@_endpoints
def enable(name: str, endpoints: Path | None) -> None:
    """Deliver to a named endpoint again, from the next completion on; `replay --endpoint NAME` repeats older ones."""
    _change(name, endpoints, disabled=False)


@webhooks.command()
@click.argument("name")
@_endpoints
def disable(name: str, endpoints: Path | None) -> None:
    """Deliver nothing to a named endpoint; what waits for it becomes a dead letter when its turn comes."""
    _change(name, endpoints, disabled=True)


def _change(name: str, endpoints: Path | None, *, disabled: bool) -> None:
    notifier = load(NotifySettings).notifier
    if notifier.endpoints_file is not None:
        known = read_endpoints(notifier.endpoints_file, notifier.allowed_topic_prefixes)
        if name not in known:
            raise UserError(
                f"there is no endpoint {name} in {notifier.endpoints_file}, only: {', '.join(sorted(known))}"
            )
    _run(change_endpoint(_kafka(endpoints), name, disabled=disabled))
    click.echo(json.dumps({"name": name, "disabled": disabled}))


def _run(work: Coroutine[Any, Any, T]) -> T:
    # The client warns of every attempt to connect; a command says it once, in its own words.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise click.Abort from None


def _stack_file(path: Path | None) -> Path | None:
    """The endpoints file to use: what was named, else the default one where no bus stands in the environment."""
    default = endpoints_file.DEFAULT_PATH
    return path or (default if _BUS_VARIABLE not in os.environ and default.is_file() else None)


def _kafka(path: Path | None) -> KafkaSettings:
    file = _stack_file(path)
    if file is None:
        kafka = load(NotifySettings).kafka
    else:
        kafka = endpoints_file.kafka_settings(endpoints_file.as_environment(endpoints_file.load(file)))
    return kafka.model_copy(update={"start_timeout_s": min(kafka.start_timeout_s, _START_TIMEOUT_S)})


def _stack_secret(path: Path | None) -> str:
    file = _stack_file(path)
    secret_file = endpoints_file.load(file).signing_secret_file if file else None
    if secret_file is None:
        raise UserError(f"set {_SECRET_VARIABLE}, or name the endpoints file of a running stack")
    return Path(secret_file).read_text().strip()


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


def _print(events: list[DeliveryAttempted]) -> None:
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
