"""`voxbus gateway`: one HTTP gateway, as a container runs it."""

import asyncio
import logging

import click
import uvloop

from infra.cli import run_alone
from infra.lifecycle import stop_on_signals
from infra.logging import configure, get_logger
from infra.settings import load, masked
from producers.gateway.app import run
from producers.gateway.keys import new_key as new_key_for
from producers.gateway.settings import Settings


@click.command()
@click.option("--new-key", metavar="NAME", help="Make an API key for NAME, print it and the line for the keys file.")
def gateway(new_key: str | None) -> None:
    """Serve HTTP: queue road, streaming road and the console page (settings: VOXBUS_GATEWAY__…)."""
    if new_key is not None:
        _print_key(new_key)
        return
    settings = load(Settings)
    configure(settings.log, stage="gateway")
    # It tells of every WebSocket with its path and query.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    get_logger(__name__).info("starting", settings=masked(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await run(settings, stop)


def _print_key(name: str) -> None:
    key, line = new_key_for(name)
    click.echo(key)
    click.echo(line)


if __name__ == "__main__":
    run_alone(gateway)
