"""`voxbus notify`, also `python -m notifier`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import click

from infra.errors import UserError
from infra.lifecycle import stop_on_signals
from infra.logging import configure, get_logger
from infra.settings import load, masked
from notifier.app import run
from notifier.settings import NotifySettings
from notifier.settlement import STAGE

_LOOKUPS = 64


@click.command()
def notify() -> None:
    """Deliver completions as signed webhooks (settings: VOXBUS_NOTIFIER__…, VOXBUS_KAFKA__…)."""
    settings = load(NotifySettings)
    configure(settings.log, stage=STAGE)
    get_logger(__name__).info("settings", **masked(settings))
    asyncio.run(_serve(settings))


async def _serve(settings: NotifySettings) -> None:
    # Names are looked up in the loop's threads; its default of a few would be held by a few dead name servers.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup"))
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await run(settings, stop)


def main() -> None:
    """Run as a module: a UserError ends as one line, like under `voxbus`."""
    try:
        notify(standalone_mode=False)
    except UserError as error:
        click.echo(f"voxbus: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
