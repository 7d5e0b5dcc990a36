"""Where the servers are: the endpoints file of a running `voxbus up`, or the environment."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from infra.embedded import endpoints as endpoints_file
from infra.settings import CommonSettings, SettingsError, load

DEFAULT_ENDPOINTS = endpoints_file.DEFAULT_PATH
_PREFIX = "VOXBUS_"
_BUS_VARIABLE = "VOXBUS_KAFKA__BOOTSTRAP_SERVERS"
# A person waits in front of these commands; stages that start with their servers are more patient.
_START_TIMEOUT_S = 5.0


class ClientSettings(CommonSettings):
    """What the commands of this package read."""

    dedup_web: str | None = None
    """Base address of the dedup app's web views; `voxbus status` asks there first."""


def settings_from_endpoints(path: Path) -> ClientSettings:
    """Settings of the embedded stack that wrote this file; it stands above the environment.

    Raises:
        UserError: the file is missing, or not what `voxbus up` writes.
    """
    endpoints = endpoints_file.load(path)
    variables = endpoints_file.as_environment(endpoints)
    try:
        return ClientSettings(**nested(variables), dedup_web=endpoints.dedup_web)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise SettingsError(f"{path} is not valid: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def client_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> ClientSettings:
    """Settings for a command: of the file when one is named, of the environment when it names a bus, otherwise of
    the endpoints file in the current folder, and without one the defaults.

    Raises:
        UserError: the file or a variable is not valid.
    """
    if path is None and _BUS_VARIABLE not in environment and DEFAULT_ENDPOINTS.is_file():
        path = DEFAULT_ENDPOINTS
    settings = settings_from_endpoints(path) if path else load(ClientSettings)
    if "start_timeout_s" in settings.kafka.model_fields_set:  # such as `voxbus topics` beside a cluster that comes up
        return settings
    kafka = settings.kafka.model_copy(update={"start_timeout_s": _START_TIMEOUT_S})
    return settings.model_copy(update={"kafka": kafka})


def nested(variables: Mapping[str, str]) -> dict[str, Any]:
    """`{"VOXBUS_KAFKA__NAMESPACE": "x"}` as `{"kafka": {"namespace": "x"}}`; other names are left out."""
    tree: dict[str, Any] = {}
    for name, value in variables.items():
        if not name.startswith(_PREFIX):
            continue
        *groups, leaf = name.removeprefix(_PREFIX).lower().split("__")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def endpoints_option(command: CommandT) -> CommandT:
    """The `--endpoints` option of every command that needs a running stack."""
    return click.option(
        "--endpoints",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"Written by `voxbus up`; default {DEFAULT_ENDPOINTS}, unless {_BUS_VARIABLE} is set.",
    )(command)
