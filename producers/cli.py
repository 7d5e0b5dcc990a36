"""`voxbus say`, `publish`, `status`, `topics`."""

import sys
from pathlib import Path
from typing import IO

import click

from infra.errors import UserError
from infra.kafka.topics import TopicState, ensure_topics
from producers.batch import Batch, BatchOptions, Summary
from producers.client import SpeechClient
from producers.connection import ClientSettings, client_settings, endpoints_option
from producers.download import download
from producers.drafts import RequestOptions, draft_of, new_request_id
from producers.errors import RequestInvalidError, SpeechFailedError, SpeechTimeoutError
from producers.lookup import last_status
from producers.terminal import note, progress_bar, run
from schemas.codes import AudioFormat, Priority
from schemas.completions import CompletionData, RequestStatus

_FORMATS = [str(one) for one in AudioFormat]
_SUFFIXES = {f".{name}": name for name in _FORMATS} | {".ogg": "opus", ".wave": "wav"}
_STANDARD_OUTPUT = Path("-")


class FailedRequestError(UserError):
    """The request did not end with audio; the message begins with the code."""


@click.command()
@click.argument("text")
@click.option("--voice", "-v", metavar="V", help="A name of the voice catalogue: female1 (default), male1, …")
@click.option(
    "--format", "-f", "audio_format", type=click.Choice(_FORMATS), help="Default: by the name after -o, else wav."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help='Default: REQUEST_ID.FORMAT here; "-": standard output.',
)
@click.option("--language", metavar="TAG", help="zh, en, …; recognised from the text when absent.")
@click.option("--dialect", metavar="D", help="mandarin, cantonese, english; the language's own when absent.")
@click.option("--speed", type=click.IntRange(0, 9), help="0 slow to 9 fast; 5 when absent.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same audio.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=120.0, show_default=True, metavar="S")
@endpoints_option
def say(
    text: str,
    voice: str | None,
    audio_format: str | None,
    output: Path | None,
    language: str | None,
    dialect: str | None,
    speed: int | None,
    seed: int | None,
    timeout_s: float,
    endpoints: Path | None,
) -> None:
    """Speak one TEXT ("-": read it from standard input) and save the audio; prints the file's name.

    Exit status 1 when the request fails; its code is then on standard error.

    \b
    Examples:
      voxbus say "您好，您的订单已发货。"
      voxbus say "Thanks for calling." --voice male1 -o thanks.mp3
      voxbus say "多謝晒" --dialect cantonese --format opus
      voxbus say "您好" -o - | aplay
    """
    chosen = audio_format or (_SUFFIXES.get(output.suffix.lower()) if output else None) or "wav"
    options = _without_none(voice=voice, language=language, dialect=dialect, speed=speed, seed=seed)
    options["format"] = chosen
    options["request_id"] = new_request_id()
    target = output or Path(f"{options['request_id']}.{chosen}")
    piped = target == _STANDARD_OUTPUT
    if not piped and not target.parent.is_dir():
        raise UserError(f"there is no folder {target.parent} to save {target.name} in")
    words = click.get_text_stream("stdin").read().strip() if text == "-" else text
    settings = client_settings(endpoints)
    place = click.get_binary_stream("stdout") if piped else target
    completion = run(_say(settings, words, options, place, timeout_s))
    if completion.audio is not None:
        origin = "from the cache" if completion.cached else "synthesised"
        note(f"{completion.audio.duration_s:.1f} s of speech, {origin}, in {completion.timings_ms.total} ms")
    if not piped:
        click.echo(target)


async def _say(
    settings: ClientSettings, text: str, options: RequestOptions, target: Path | IO[bytes], timeout_s: float
) -> CompletionData:
    try:
        draft_of(text, options)  # before connecting: what is wrong with the words needs no server to be said
        with progress_bar() as progress:
            task = progress.add_task("connecting", total=100)

            def show(status: RequestStatus) -> None:
                progress.update(task, description=str(status.state), completed=status.percent)

            async with SpeechClient(settings.kafka, client_id="voxbus-say") as speech:
                completion = await speech.synthesize(text, timeout_s=timeout_s, on_status=show, **options)
            if completion.audio is None:
                raise FailedRequestError(f"internal: the completion of {completion.request_id} names no audio")
            progress.update(task, description="downloading", completed=100)
            await download(completion.audio, target)
    except RequestInvalidError as error:
        raise FailedRequestError(f"{error.code}: {error}") from None
    except SpeechFailedError as error:
        raise FailedRequestError(str(error)) from None
    except SpeechTimeoutError as error:
        raise UserError(f"{error}; it goes on: `voxbus status {error.request_id}`") from None
    return completion


def _without_none(
    *, voice: str | None, language: str | None, dialect: str | None, speed: int | None, seed: int | None
) -> RequestOptions:
    options = RequestOptions()
    if voice is not None:
        options["voice"] = voice
    if language is not None:
        options["language"] = language
    if dialect is not None:
        options["dialect"] = dialect
    if speed is not None:
        options["speed"] = speed
    if seed is not None:
        options["seed"] = seed
    return options


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--wait", is_flag=True, help="Wait for the end of every request.")
@click.option("--strict", is_flag=True, help="Publish nothing when one line is bad; unknown fields count as bad.")
@click.option("--priority", type=click.Choice([str(one) for one in Priority]), help="For lines that name none.")
@click.option("--callback-url", metavar="URL", help="For lines that name none.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=600.0, show_default=True, metavar="S",
              help="With --wait: for all of them together.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON line.")
@endpoints_option
def publish(
    file: IO[bytes],
    wait: bool,
    strict: bool,
    priority: str | None,
    callback_url: str | None,
    timeout_s: float,
    as_json: bool,
    endpoints: Path | None,
) -> None:
    """Publish FILE ("-": standard input), one JSON request a line, and print a summary.

    A bad line is named with its number and does not stop the others, unless --strict. Exit status 1 when a line
    was bad or, with --wait, a request did not end with audio.

    \b
    Examples:
      voxbus publish examples/requests.jsonl --wait
      echo '{"text": "你好"}' | voxbus publish - --callback-url http://127.0.0.1:8000/hook
    """
    defaults = {"priority": priority, "callback_url": callback_url}
    options = BatchOptions(
        wait=wait,
        strict=strict,
        defaults={name: value for name, value in defaults.items() if value is not None},
        timeout_s=timeout_s,
    )
    summary = run(_publish(client_settings(endpoints), file, options))
    click.echo(summary.as_json() if as_json else summary.as_text(waited=wait))
    if not summary.good:
        sys.exit(1)


async def _publish(settings: ClientSettings, file: IO[bytes], options: BatchOptions) -> Summary:
    with progress_bar(unit="requests") as progress:
        task = progress.add_task("waiting" if options.wait else "publishing", total=None)

        def show(summary: Summary) -> None:
            done = summary.ends if options.wait else summary.published
            progress.update(task, total=summary.published, completed=done)

        async with SpeechClient(settings.kafka, client_id="voxbus-publish") as speech:
            return await Batch(speech, options, say=note, progress=show).publish(file)


@click.command()
@click.argument("request_id")
@endpoints_option
def status(request_id: str, endpoints: Path | None) -> None:
    """Print the state of one request as JSON.

    Asks the dedup app's web view; without one, reads the status topic. Exit status 1 when nothing is known of it.

    \b
    Examples:
      voxbus status 01JDC4Q0V7M8T3GSC2K9XK6W5N
      voxbus status "$ID" --endpoints /var/lib/voxbus/endpoints.json
    """
    found = run(last_status(client_settings(endpoints), request_id))
    if found is None:
        raise UserError(f"nothing is known of request {request_id}")
    click.echo(found)


@click.command()
@click.option("--check", is_flag=True, help="Only look; exit status 1 when a topic is missing or too narrow.")
@endpoints_option
def topics(check: bool, endpoints: Path | None) -> None:
    """Create the topics that are missing, and list all.

    \b
    Examples:
      voxbus topics
      VOXBUS_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 VOXBUS_KAFKA__PARTITIONS=32 voxbus topics --check
    """
    settings = client_settings(endpoints).kafka
    states = run(ensure_topics(settings, create=not check))
    width = max(len(settings.namespace + state.name) for state in states)
    for state in states:
        click.echo(f"{settings.namespace + state.name:<{width}}  {_described(state)}")
    if not all(state.good for state in states):
        sys.exit(1)


def _described(state: TopicState) -> str:
    return f"{state.partitions:>4} partitions  {state.result}" + ("" if state.good else f" (wants {state.wanted})")


__all__ = ["publish", "say", "status", "topics"]
