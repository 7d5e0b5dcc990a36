"""The `voxbus` command: finds its sub-commands in the entry points of group `voxbus.commands`.

Nothing of a stage is imported until its command is called, so an image with one stage's dependencies runs that
stage, and the others say which extra they want.
"""

import sys
from importlib.metadata import EntryPoint, entry_points, version

import click

from infra.errors import UserError

_GROUP = "voxbus.commands"
_EXTRAS = {
    "up": "embedded",
    "dedup": "dedup",
    "synth": "synth",
    "upload": "uploader",
    "notify": "notifier",
    "webhooks": "notifier",
    "audit": "audit",
    "gateway": "gateway",
}


def _commands() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}


class LazyCommands(click.Group):
    """A group whose commands are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted(_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; a missing dependency becomes a message that names the extra to install."""
        point = _commands().get(cmd_name)
        if point is None:
            return None
        try:
            command: click.Command = point.load()
        except ModuleNotFoundError as error:
            return _unavailable(cmd_name, error)
        return command


def _unavailable(name: str, error: ModuleNotFoundError) -> click.Command:
    extra = _EXTRAS.get(name, "producers")

    def refuse(**_: object) -> None:
        raise click.ClickException(
            f"`voxbus {name}` needs {error.name}, which is not installed here; "
            f"install it with: pip install 'voxbus[{extra}]'"
        )

    return click.Command(
        name,
        callback=refuse,
        help=f"Not installed here: pip install 'voxbus[{extra}]'",
        short_help=f"(not installed here: needs voxbus[{extra}])",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("voxbus"), prog_name="voxbus")
def voxbus() -> None:
    """Event-driven text to speech: requests on Kafka in, audio in object storage and signed webhooks out.

    \b
    Examples:
      voxbus up                                  start everything on this machine
      voxbus say "你好，欢迎致电" -o hello.wav      speak one text
      voxbus publish requests.jsonl --wait       send many, one request a line
      voxbus status REQUEST_ID                   where one request is
    """


def run_alone(command: click.Command) -> None:
    """Run a command as a program: errors meant for people end as one line on standard error and a non-zero exit."""
    try:
        command(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except UserError as error:
        click.echo(f"voxbus: {error}", err=True)
        sys.exit(error.exit_code)


def main() -> None:
    """Entry point of `voxbus`."""
    run_alone(voxbus)
