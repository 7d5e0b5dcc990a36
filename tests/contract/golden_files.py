"""The wire form of every sample, one file each.

Run `python -m tests.contract.golden_files` to write them anew after a change that is meant. A file that changes is a
change of what other people's programs read: raise the event type's major version when they would stumble over it.
"""

from pathlib import Path

from schemas.base import Event
from schemas.codec import Context, Headers, encode, encode_chunk
from tests.contract.samples import BARE, CHUNK, FULL, MOMENT, TRACEPARENT

FOLDER = Path(__file__).with_name("golden")


def expected() -> dict[str, bytes]:
    """File name → content: values as they stand on the topic, headers one a line."""
    files = {f"{type(event).__name__}.json": value_of(event) for event in FULL}
    files |= {f"{type(event).__name__}.bare.json": value_of(event) for event in BARE}
    chunk = encode_chunk(CHUNK, source="voxbus/worker").headers
    # The time is the clock's.
    files["AudioChunk.headers.txt"] = header_lines(tuple(header for header in chunk if header[0] != "ce_time"))
    context = Context(TRACEPARENT, {"callbackurl": "https://bot.example.com/hooks/speech"})
    message = encode(FULL[0], source="voxbus/producers", context=context, time=MOMENT, event_id="event-1")
    files["headers.txt"] = header_lines(message.headers)
    return files


def value_of(event: Event) -> bytes:
    """The record's value."""
    return encode(event, source="test").value


def header_lines(headers: Headers) -> bytes:
    """`name: value` lines."""
    return b"".join(name.encode() + b": " + value + b"\n" for name, value in headers)


def main() -> None:
    """Write the folder anew."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, content in expected().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
