"""`voxbus dedup`: one dedup worker."""

import asyncio

import click

from infra.cli import run_alone
from infra.lifecycle import stop_on_signals
from infra.logging import configure, get_logger
from infra.settings import load, masked
from synth_consumer.dedup.app import run
from synth_consumer.dedup.settings import Settings


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await run(settings, stop)


@click.command()
def dedup() -> None:
    """Run one dedup worker: admits requests, collapses repeats, ends every request."""
    settings = load(Settings)
    configure(settings.log, stage="dedup")
    log = get_logger(__name__)
    log.info("starting", settings=masked(settings))
    asyncio.run(_main(settings))
    log.info("stopped")


if __name__ == "__main__":
    run_alone(dedup)
