"""`voxbus up` and `voxbus ps`."""

import asyncio
import json
import os
import signal
from pathlib import Path

import click
from rich.console import Console

from infra.embedded import janitor
from infra.embedded.console import StartProgress, state_table, uptime_s
from infra.embedded.endpoints import as_environment, kafka_settings
from infra.embedded.endpoints import load as load_endpoints
from infra.embedded.files import DataDirectory
from infra.embedded.stack import Planner, installed, running_servers, running_stack
from infra.embedded.stages import StageOptions
from infra.embedded.state import StackState, read_state
from infra.errors import UserError
from infra.lifecycle import TaskFailedError, run_until_stopped, stop_on_signals

# A listing of many objects may take long; the table should not wait for it.
_AUDIO_TIMEOUT_S = 5.0

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".voxbus"),
    show_default=True,
    help="Everything the stack keeps; a second start over it goes on where the first ended.",
)


@click.command()
@_data_dir
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port of the HTTP gateway; 0: a free one.")
@click.option("--engine", type=click.Choice(["espeak", "tone", "chattts"]), help="Which engine speaks.")
@click.option("--slots", type=click.IntRange(1, 256), help="Engines side by side; counted by itself when left out.")
@click.option("--servers-only", is_flag=True, help="Only Kafka, Redis and S3, without the stages.")
def up(data_dir: Path, port: int, engine: str | None, slots: int | None, servers_only: bool) -> None:
    """Run everything on this machine, in the foreground, until Ctrl-C.

    When all is ready, one JSON line with the addresses goes to standard output, and to endpoints.json in the data
    directory. What happens on the way is told on standard error.
    """
    options = StageOptions(engine=engine, slots=slots, gateway_port=port)
    asyncio.run(run_up(data_dir, None if servers_only else options))


async def run_up(data_dir: Path, options: StageOptions | None, *, plan_stages: Planner = installed) -> None:
    """What `voxbus up` does; returns when it was asked to stop and everything has ended.

    Args:
        data_dir: where the stack keeps everything.
        options: None runs the servers alone.
        plan_stages: other stages than the installed ones, for tests.

    Raises:
        UserError: see `running_stack`; or a child keeps dying.
    """
    stop = asyncio.Event()
    with stop_on_signals(stop):
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it and must stay able to
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop.set)
        try:
            # Stopping cancels the stack wherever it is, half started too; its own ends then drain what runs.
            await run_until_stopped(stop, stack=_stack(data_dir, options, plan_stages))
        except TaskFailedError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise


async def _stack(data_dir: Path, options: StageOptions | None, plan_stages: Planner) -> None:
    with StartProgress(Console(stderr=True)) as progress:
        started = (
            running_servers(data_dir, listener=progress.update)
            if options is None
            else running_stack(data_dir, options, listener=progress.update, note=progress.note, plan_stages=plan_stages)
        )
        async with started as running:
            running.endpoints.write(running.directory.endpoints)
            click.echo(running.endpoints.line())
            await running.supervisor.run()


@click.command()
@_data_dir
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def ps(data_dir: Path, as_json: bool) -> None:
    """Show stage, pid, restarts, state and uptime of the running stack, and what audio its bus holds."""
    directory = DataDirectory(data_dir.absolute())
    state = read_state(directory)
    audio = asyncio.run(_audio(directory))
    if as_json:
        click.echo(json.dumps(_as_plain_data(directory, state, audio)))
        return
    console = Console(soft_wrap=True)
    console.print(state_table(state))
    console.print(f"logs: {directory.logs}", highlight=False)
    if audio:
        console.print(
            f"audio on the bus: {audio.bytes / 1024 / 1024:.1f} MiB in {audio.objects} objects", highlight=False
        )


async def _audio(directory: DataDirectory) -> janitor.TopicSize | None:
    """None while the stack is not far enough to tell."""
    try:
        endpoints = load_endpoints(directory.endpoints)
        settings = kafka_settings({**os.environ, **as_environment(endpoints)})
        async with asyncio.timeout(_AUDIO_TIMEOUT_S):
            return await janitor.audio_size(endpoints, settings)
    except (UserError, TimeoutError):
        return None


def _as_plain_data(directory: DataDirectory, state: StackState, audio: janitor.TopicSize | None) -> dict[str, object]:
    return {
        "supervisor": state.supervisor,
        "data_dir": str(directory.root),
        "children": [
            {
                "stage": child.name,
                "kind": child.kind,
                "pid": child.pid,
                "restarts": child.restarts,
                "state": child.state,
                "uptime_s": uptime_s(child),
                "log": str(child.log),
            }
            for child in state.children
        ],
        "audio_topic": {"bytes": audio.bytes, "objects": audio.objects} if audio else None,
    }
