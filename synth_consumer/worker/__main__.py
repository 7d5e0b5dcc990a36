"""`voxbus synth`: speaks jobs on this machine's devices."""

import asyncio

import click

from infra.cli import run_alone
from infra.lifecycle import stop_on_signals
from infra.logging import configure, get_logger
from infra.settings import load, masked
from synth_consumer.worker.app import current_plan, run_worker
from synth_consumer.worker.job_speaker import STAGE
from synth_consumer.worker.settings import WorkerSettings


@click.command()
@click.option("--plan", is_flag=True, help="Show the slots this machine would get, and end.")
def synth(plan: bool) -> None:
    """Speak jobs: one consumer and one engine process for each device slot.

    Set up by VOXBUS_SYNTH__… (ENGINE, SLOTS, LANES, …). SIGTERM drains and exits 0.

    \b
    Examples:
      voxbus synth --plan
      VOXBUS_SYNTH__ENGINE=espeak VOXBUS_SYNTH__SLOTS=2 voxbus synth
      VOXBUS_SYNTH__ENGINE=chattts VOXBUS_SYNTH__CHATTTS__ASSETS=/models voxbus synth
    """
    settings = load(WorkerSettings)
    if plan:
        asyncio.run(_show_plan(settings))
        return
    configure(settings.log, stage=STAGE)
    get_logger(__name__).info("settings", settings=masked(settings))
    asyncio.run(_run(settings))


async def _run(settings: WorkerSettings) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await run_worker(settings, stop)


async def _show_plan(settings: WorkerSettings) -> None:
    plan = await current_plan(settings.synth)
    for device in plan.devices:
        needs = device.needs
        click.echo(
            f"{device.name}: {device.free_mb} MB free; weights {needs.weights_mb} MB and {needs.process_mb} MB beside "
            f"them a slot, {needs.lane_mb} MB a lane; {device.slots} slots of {device.lanes} lanes"
        )
    for slot in plan.slots:
        lanes = "the engine's own" if slot.lanes is None else slot.lanes
        click.echo(f"slot {slot.index}: {settings.synth.engine} on {slot.device}, lanes: {lanes}")
    click.echo(f"because: {plan.reason}")


if __name__ == "__main__":
    run_alone(synth)
