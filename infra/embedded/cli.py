"""`voxbus up` and `voxbus ps`."""

import asyncio
from pathlib import Path

import click

from infra.embedded.stack import running_servers
from infra.lifecycle import run_until_stopped, stop_on_signals


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), default=Path(".voxbus"))
@click.option("--servers-only", is_flag=True, help="Kafka, Redis and S3 alone, no stages.")
def up(data_dir: Path, servers_only: bool) -> None:
    """Run everything on this machine until Ctrl-C."""
    asyncio.run(_up(data_dir))


async def _up(data_dir: Path) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop):
        async with running_servers(data_dir) as running:
            running.endpoints.write(running.directory.endpoints)
            click.echo(running.endpoints.line())
            await run_until_stopped(stop, supervisor=running.supervisor.run())


@click.command()
def ps() -> None:
    """Show the running stack."""
