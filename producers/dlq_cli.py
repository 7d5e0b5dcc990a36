"""`voxbus dlq`: what could not be handled, why, and another try."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import click
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from rich.console import Console
from rich.table import Table

from infra.errors import UserError
from infra.kafka.clients import BusProducer, bus_producer
from producers.connection import ClientSettings, client_settings, endpoints_option
from producers.dead_letters import Choice, Letter, ended_id, letters, under_new_id, whole_message
from producers.errors import PublishError
from producers.terminal import note, run
from producers.topic_log import TopicLog, topic_log
from schemas import topics
from schemas.codec import Message
from schemas.codes import ErrorCode

_CODES = [str(code) for code in ErrorCode]
_SHOWN_BYTES = 65_536
# What somebody could publish can be published again; the broker has the last word.
_MAX_REPLAY_BYTES = 64 * 1_048_576


@click.group()
def dlq() -> None:
    """List, show and replay dead letters.

    A dead letter is named PARTITION:OFFSET, as `voxbus dlq list` shows it.

    \b
    Examples:
      voxbus dlq list --code unsupported_voice
      voxbus dlq show 3:17 --content
      voxbus dlq replay 3:17
      voxbus dlq replay --all --stage upload
    """


def _choice_options(command: click.decorators.FC) -> click.decorators.FC:
    command = click.option(
        "--topic", type=click.Choice(sorted(topics.TOPICS)), metavar="T", help="Where it lay first."
    )(command)
    command = click.option("--stage", metavar="S", help="Who could not handle it.")(command)
    return click.option("--code", type=click.Choice(_CODES), metavar="C", help="Why, from the list of codes.")(command)


def _choice(code: str | None, stage: str | None, topic: str | None, ids: tuple[str, ...] = ()) -> Choice:
    return Choice(frozenset(ids) or None, ErrorCode(code) if code else None, stage, topic)


@dlq.command(name="list")
@_choice_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@endpoints_option
def list_letters(code: str | None, stage: str | None, topic: str | None, as_json: bool, endpoints: Path | None) -> None:
    """Show the dead letters: where they came from and why; never their content.

    \b
    Examples:
      voxbus dlq list
      voxbus dlq list --topic tts.requests --json | jq -r .id
    """
    found = run(_found(client_settings(endpoints), _choice(code, stage, topic)))
    if as_json:
        for letter in found:
            click.echo(json.dumps(_facts(letter)))
    elif found:
        _print_table(found)
    else:
        note("no dead letters")


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("--content", is_flag=True, help="Print the message too: it may hold personal data.")
@endpoints_option
def show(letter_id: str, content: bool, endpoints: Path | None) -> None:
    """Print why one message became a dead letter.

    \b
    Examples:
      voxbus dlq show 3:17
      voxbus dlq show 3:17 --content
    """
    found = run(_found(client_settings(endpoints), Choice(frozenset({letter_id}))))
    if not found:
        raise UserError(f"there is no dead letter {letter_id}; see `voxbus dlq list`")
    click.echo(json.dumps(_facts(found[0]) | (_content(found[0]) if content else {}), ensure_ascii=False, indent=2))


@dlq.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that the other options leave.")
@click.option("--new-id", is_flag=True, help="All get a fresh id; what cannot have one is left.")
@_choice_options
@endpoints_option
def replay(
    letter_ids: tuple[str, ...],
    everything: bool,
    new_id: bool,
    code: str | None,
    stage: str | None,
    topic: str | None,
    endpoints: Path | None,
) -> None:
    """Publish dead letters again to the topics they came from, whole, as they first came.

    The letters themselves stay. Remove the cause first, or they come back. A request that ended as failed under an
    id of its own stays ended, for a repeated id changes nothing: it is sent under a fresh one, which is printed
    after the letter's name.

    \b
    Examples:
      voxbus dlq replay 3:17 0:4
      voxbus dlq replay --all --code unsupported_voice
    """
    if bool(letter_ids) == everything:
        raise click.UsageError("name the dead letters, or say --all")
    choice = _choice(code, stage, topic, letter_ids)
    replayed, failed = run(_replay(client_settings(endpoints), choice, new_id=new_id))
    for message in failed:
        note(f"voxbus: {message}")
    for letter_id, request_id in replayed.items():
        if request_id:
            click.echo(f"{letter_id} {request_id}")
    click.echo(f"{len(replayed)} replayed" + (f", {len(failed)} not" if failed else ""))
    missing = sorted(set(letter_ids) - set(replayed)) if not failed else []
    if missing:
        raise UserError(f"there is no dead letter {', '.join(missing)}; see `voxbus dlq list`")
    if failed:
        raise UserError("not everything was replayed")


async def _found(settings: ClientSettings, choice: Choice) -> list[Letter]:
    async with topic_log(settings.kafka, client_id="voxbus-dlq") as log:
        return [letter async for letter in letters(log, choice)]


async def _replay(settings: ClientSettings, choice: Choice, *, new_id: bool) -> tuple[dict[str, str | None], list[str]]:
    """Ids of the letters that were published, with their new request ids, and why others were not."""
    replayed: dict[str, str | None] = {}
    failed: list[str] = []
    async with _log_and_producer(settings) as (log, source, producer):
        async for letter in letters(log, choice):
            try:
                message, request_id = await whole_message(source, letter), None
                ended = ended_id(letter, message)
                if new_id or ended:
                    request_id, message = under_new_id(letter, message)
                await _publish(producer, letter, message)
                replayed[letter.id] = request_id
                if ended:
                    note(f"{letter.id}: request {ended} ended as failed and stays so; sent again as {request_id}")
            except UserError as error:
                failed.append(str(error))
    return replayed, failed


@asynccontextmanager
async def _log_and_producer(settings: ClientSettings) -> AsyncIterator[tuple[TopicLog, TopicLog, BusProducer]]:
    """Two readers: one walks the dead letters while the other looks up what they came from."""
    async with (
        topic_log(settings.kafka, client_id="voxbus-dlq") as log,
        topic_log(settings.kafka, client_id="voxbus-dlq-source") as source,
        bus_producer(settings.kafka, client_id="voxbus-dlq", max_request_bytes=_MAX_REPLAY_BYTES) as producer,
    ):
        yield log, source, producer


async def _publish(producer: BusProducer, letter: Letter, message: Message) -> None:
    try:
        await producer.deliver(letter.reason.topic, message)
    except MessageSizeTooLargeError:
        raise PublishError(f"dead letter {letter.id} has {len(message.value)} bytes, more than the bus takes") from None
    except KafkaError as error:
        raise PublishError(f"dead letter {letter.id} was not taken by the bus: {type(error).__name__}") from None


def _facts(letter: Letter) -> dict[str, object]:
    facts = asdict(letter.reason)
    return {"id": letter.id, **facts, "code": str(letter.reason.code), "at": letter.reason.at.isoformat()}


def _content(letter: Letter) -> dict[str, object]:
    shown = letter.message.value[:_SHOWN_BYTES]
    return {
        "key": (letter.message.key or b"").decode("utf-8", "replace"),
        "headers": {name: value.decode("utf-8", "replace") for name, value in letter.message.headers},
        "content": shown.decode("utf-8", "replace"),
    }


def _print_table(found: list[Letter]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("id", "at", "code", "stage", "topic", "pointer", "message"):
        table.add_column(title, overflow="fold", no_wrap=title in {"id", "code"})
    for letter in found:
        reason = letter.reason
        at = reason.at.isoformat(timespec="seconds").replace("+00:00", "Z")
        table.add_row(letter.id, at, str(reason.code), reason.stage, reason.topic, reason.pointer, reason.message)
    Console(width=None if Console().is_terminal else 200, markup=False, highlight=False).print(table)
