"""What the commands work on: the bus, the signing secret and the named endpoints, from environment or stack file."""

import asyncio
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from infra.embedded import endpoints as stack_file
from infra.errors import UserError
from infra.settings import KafkaSettings, load
from notifier.named_endpoint import NamedEndpoint, read_endpoints
from notifier.settings import NotifySettings

_BUS_VARIABLE = "VOXBUS_KAFKA__BOOTSTRAP_SERVERS"
_SECRET_VARIABLE = "VOXBUS_NOTIFIER__SIGNING_SECRET"  # noqa: S105  # the variable's name
FILE_VARIABLE = "VOXBUS_NOTIFIER__ENDPOINTS_FILE"
# A person waits in front of these commands.
_START_TIMEOUT_S = 5.0

T = TypeVar("T")

stack_option = click.option(
    "--endpoints",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Written by `voxbus up`; default {stack_file.DEFAULT_PATH}, unless {_BUS_VARIABLE} is set.",
)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work."""
    # The client warns of every attempt to connect; a command says it once, in its own words.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise click.Abort from None


def kafka(path: Path | None) -> KafkaSettings:
    """The bus, of the named stack file, the environment, or the default stack file.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    file = _stack_file(path)
    if file is None:
        settings = load(NotifySettings).kafka
    else:
        settings = stack_file.kafka_settings(stack_file.as_environment(stack_file.load(file)))
    return settings.model_copy(update={"start_timeout_s": min(settings.start_timeout_s, _START_TIMEOUT_S)})


def stack_secret(path: Path | None) -> str:
    """The signing secret of a running stack.

    Raises:
        UserError: there is no stack file.
    """
    file = _stack_file(path)
    secret_file = stack_file.load(file).signing_secret_file if file else None
    if secret_file is None:
        raise UserError(f"set {_SECRET_VARIABLE}, or name the endpoints file of a running stack")
    return Path(secret_file).read_text().strip()


def named_endpoints() -> dict[str, NamedEndpoint] | None:
    """The named endpoints; None when no file of them is set.

    Raises:
        UserError: the file cannot be read, or is not valid.
    """
    notifier = load(NotifySettings).notifier
    if notifier.endpoints_file is None:
        return None
    return read_endpoints(notifier.endpoints_file, notifier.allowed_topic_prefixes)


def known_endpoint(name: str, known: dict[str, NamedEndpoint]) -> NamedEndpoint:
    """One of the named endpoints.

    Raises:
        UserError: there is none of this name.
    """
    if name not in known:
        raise UserError(f"there is no endpoint {name} in {os.environ[FILE_VARIABLE]}, only: {', '.join(sorted(known))}")
    return known[name]


def _stack_file(path: Path | None) -> Path | None:
    """The stack file to use: what was named, else the default one where no bus stands in the environment."""
    default = stack_file.DEFAULT_PATH
    return path or (default if _BUS_VARIABLE not in os.environ and default.is_file() else None)
