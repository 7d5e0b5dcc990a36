"""`voxbus webhooks endpoints`, `enable`, `disable`: the named endpoints and their states."""

import json
from pathlib import Path
from typing import Any

import click

from notifier.endpoint_states import change_endpoint, endpoint_states
from notifier.named_endpoint import NamedEndpoint
from notifier.stack import kafka, known_endpoint, named_endpoints, run, stack_option
from schemas.endpoints import EndpointChanged


@click.command(name="endpoints")
@stack_option
def list_endpoints(endpoints: Path | None) -> None:
    """Show every named endpoint, of the file and of the bus; one JSON object a line.

    An endpoint of the file that was never disabled, enabled, or failing for a while has no more to say than that.
    """
    states, known = run(endpoint_states(kafka(endpoints))), named_endpoints()
    for name in sorted({*states, *(known or ())}):
        click.echo(json.dumps({"name": name, **_configured(name, known), **_state(states.get(name))}))


@click.command()
@click.argument("name")
@stack_option
def enable(name: str, endpoints: Path | None) -> None:
    """Deliver to a named endpoint again, from the next completion on.

    `replay --endpoint NAME --since TIME` delivers what it missed.
    """
    _change(name, endpoints, disabled=False)


@click.command()
@click.argument("name")
@stack_option
def disable(name: str, endpoints: Path | None) -> None:
    """Deliver nothing to a named endpoint; what waits for it becomes a dead letter when its turn comes."""
    _change(name, endpoints, disabled=True)


def _change(name: str, endpoints: Path | None, *, disabled: bool) -> None:
    known = named_endpoints()
    if known is not None:
        known_endpoint(name, known)
    run(change_endpoint(kafka(endpoints), name, disabled=disabled))
    click.echo(json.dumps({"name": name, "disabled": disabled}))


def _configured(name: str, known: dict[str, NamedEndpoint] | None) -> dict[str, Any]:
    """What the file says, without what is secret: headers may carry tokens, so only their names."""
    if known is None:
        return {}
    if name not in known:
        return {"configured": False}
    endpoint = known[name]
    said: dict[str, Any] = {"configured": True, "url": endpoint.url, "events": list(endpoint.events)}
    if endpoint.secrets:
        said["secrets"] = len(endpoint.secrets)
    if endpoint.rate_per_s is not None:
        said["rate_per_s"] = endpoint.rate_per_s
    if endpoint.headers:
        said["headers"] = sorted(endpoint.headers)
    return said


def _state(state: EndpointChanged | None) -> dict[str, Any]:
    return state.model_dump(mode="json", exclude_none=True, exclude={"name"}) if state else {"disabled": False}
