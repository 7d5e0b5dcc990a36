"""`voxbus upload`, or `python -m uploader`: one uploader, as a container runs it."""

import asyncio
import sys

import click

from infra import logging
from infra.errors import UserError
from infra.lifecycle import stop_on_signals
from infra.settings import load, masked
from uploader import app
from uploader.outcomes import STAGE
from uploader.settings import UploaderSettings


@click.command()
def upload() -> None:
    """Assemble takes, check, encode and store them, until SIGTERM or Ctrl-C."""
    settings = load(UploaderSettings)
    logging.configure(settings.log, stage=STAGE)
    logging.get_logger(__name__).info("settings", settings=masked(settings))
    asyncio.run(_run(settings))


async def _run(settings: UploaderSettings) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await app.run(settings, stop)


if __name__ == "__main__":
    try:
        upload(prog_name="python -m uploader")
    except UserError as error:
        click.echo(f"voxbus: {error}", err=True)
        sys.exit(error.exit_code)
