"""What the commands share: running a coroutine under Ctrl-C, and progress that only a person sees."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine. Ctrl-C cancels it, lets it clean up, and ends with status 130."""
    # Libraries warn of every attempt to connect; a command says it once, in its own words.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        raise click.Abort from None


def progress_bar(*, unit: str = "") -> Progress:
    """A bar on standard error, drawn only on a terminal, gone when done."""
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()]
    if unit:
        columns.append(TextColumn(f"{{task.completed:.0f}} of {{task.total}} {unit}"))
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def note(message: str) -> None:
    """A line for people, on standard error; standard output is for what scripts read."""
    click.echo(message, err=True)
