"""`voxbus notify`, also `python -m notifier`."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import click
from aiokafka.errors import KafkaError

from infra.cli import run_alone
from infra.kafka.clients import unreachable
from infra.lifecycle import TaskFailedError, stop_on_signals
from infra.logging import configure, get_logger
from infra.settings import load, masked
from notifier.app import run
from notifier.resolver import MAX_LOOKUPS
from notifier.settings import NotifySettings
from notifier.settlement import STAGE

# Beside the lookups of receivers, those of the bus: they must not wait for silent name servers.
_THREADS = MAX_LOOKUPS + 8


@click.command()
def notify() -> None:
    """Deliver completions as signed webhooks (settings: VOXBUS_NOTIFIER__…, VOXBUS_KAFKA__…)."""
    settings = load(NotifySettings)
    configure(settings.log, stage=STAGE)
    get_logger(__name__).info("settings", settings=masked(settings))
    asyncio.run(_serve(settings))


async def _serve(settings: NotifySettings) -> None:
    # Names are looked up in the loop's threads; its default of a few would be held by a few dead name servers.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="lookup"))
    stop = asyncio.Event()
    with stop_on_signals(stop):
        try:
            await run(settings, stop)
        except TaskFailedError as error:
            if isinstance(error.__cause__, KafkaError):
                raise unreachable(settings.kafka) from error
            raise


if __name__ == "__main__":
    run_alone(notify)
