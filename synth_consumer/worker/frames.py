"""What a slot and its engine process say to one another over two pipes.

A frame is two lengths (big-endian uint32), a JSON head that names the message and carries its fields, and a body
of raw PCM, empty but for audio. No pickle: a frame can be read by eye and cannot run code.
"""

import asyncio
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import BinaryIO

from synth_consumer.engines.protocol import SpeechTask

_LENGTHS = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Open:
    """First command: make, load and warm up an engine."""

    factory: str  # "module:function" that is called with the settings' JSON and returns an engine
    settings: str  # JSON of the worker's synth settings
    first_chunk_s: float
    chunk_s: float


@dataclass(frozen=True, slots=True)
class Join:
    """Give a lane to a task."""

    task: SpeechTask


@dataclass(frozen=True, slots=True)
class Cancel:
    """Free the lane of a take; nothing more is said of it."""

    take_id: str


@dataclass(frozen=True, slots=True)
class Warm:
    """Speak something short, so that an idle device stays awake."""


Command = Open | Join | Cancel | Warm


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is loaded and warm."""

    name: str
    revision: str
    sample_rate: int  # Hz
    lanes: int
    load_s: float
    warm_s: float


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The engine cannot be loaded here; the message is for the operator. The process ends."""

    message: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """The engine raised what it must not; its state is unknown and the process ends."""

    error: str  # the exception's class; its message may hold a request's text


@dataclass(frozen=True, slots=True)
class Audio:
    """One chunk of a take, ready for the bus."""

    take_id: str
    index: int
    progress: float  # 0..1
    pcm: bytes = b""  # int16 little-endian mono


@dataclass(frozen=True, slots=True)
class Finished:
    """All chunks of the take were said; this is what they add up to."""

    take_id: str
    chunks: int
    samples: int
    sha256: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The take ended without audio worth keeping; its lane is free."""

    take_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The engine is alive and stepping; said about once a second while takes are held, and after warming."""

    steps: int  # since the beat before
    seconds: float  # spent in them


@dataclass(frozen=True, slots=True)
class Lanes:
    """The engine speaks only so many takes at once from now on, as memory ran short or came back."""

    lanes: int


ChildEvent = Ready | Unavailable | Crashed | Audio | Finished | Failed | Beat | Lanes
Frame = Command | ChildEvent

_KINDS: dict[str, Callable[..., Frame]] = {
    kind.__name__: kind
    for kind in (Open, Cancel, Warm, Ready, Unavailable, Crashed, Audio, Finished, Failed, Beat, Lanes)
}
_KINDS["Join"] = lambda task: Join(SpeechTask(**task))


class FrameError(Exception):
    """The other side does not speak this protocol."""


def pack(frame: Frame) -> bytes:
    """The bytes of a frame."""
    fields = asdict(frame)
    body = fields.pop("pcm", b"")
    head = json.dumps({"kind": type(frame).__name__, **fields}, ensure_ascii=False).encode()
    return b"".join((_LENGTHS.pack(len(head), len(body)), head, body))


def _unpack(head: bytes, body: bytes) -> Frame:
    try:
        fields = json.loads(head)
        if body:
            fields["pcm"] = body
        return _KINDS[fields.pop("kind")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"unreadable frame: {type(error).__name__}") from None


async def read_async(stream: asyncio.StreamReader) -> Frame | None:
    """The next frame; None when the other side closed the pipe, also in the middle of a frame."""
    try:
        head_bytes, body_bytes = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
        head = await stream.readexactly(head_bytes)
        body = await stream.readexactly(body_bytes) if body_bytes else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _unpack(head, body)


def read_blocking(stream: BinaryIO) -> Frame | None:
    """The next frame; None when the other side closed the pipe."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_bytes, body_bytes = _LENGTHS.unpack(lengths)
    return _unpack(stream.read(head_bytes), stream.read(body_bytes))
