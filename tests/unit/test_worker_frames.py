"""What travels between a slot and its engine process."""

import asyncio
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_consumer.engines.protocol import SpeechTask
from synth_consumer.worker.frames import (
    Audio,
    Beat,
    Cancel,
    Crashed,
    Failed,
    Finished,
    Frame,
    FrameError,
    Join,
    Open,
    Ready,
    Unavailable,
    Warm,
    pack,
    read_async,
    read_blocking,
)

_FRAMES: list[Frame] = [
    Open("module:make", '{"engine": "tone"}', 0.3, 1.0),
    Join(SpeechTask("t1", "你好 “hello”\n", "zh", "mandarin", "female1", 7, break_=3)),
    Cancel("t1"),
    Warm(),
    Ready("tone", "1", 24_000, 8, 0.1, 0.2),
    Unavailable("no weights"),
    Crashed("RuntimeError"),
    Audio("t1", 3, 0.5, b"\x00\x01\xff\xfe"),
    Finished("t1", 4, 96_000, "ab" * 32, False),
    Failed("t1", "bad_audio", "samples are not finite"),
    Beat(3, 0.25),
]


@pytest.mark.parametrize("frame", _FRAMES, ids=lambda frame: type(frame).__name__)
def test_frames_come_back_as_they_were(frame: Frame) -> None:
    assert read_blocking(io.BytesIO(pack(frame))) == frame


async def test_frames_in_a_row_and_a_cut_one() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"".join(map(pack, _FRAMES)) + pack(_FRAMES[-4])[:-1])
    stream.feed_eof()
    assert [await read_async(stream) for _ in _FRAMES] == _FRAMES
    assert await read_async(stream) is None, "a frame that was cut off is the end"


@given(st.binary(max_size=60))
def test_rubbish_is_an_error_and_nothing_else(head: bytes) -> None:
    with pytest.raises(FrameError):
        read_blocking(io.BytesIO(struct.pack("!II", len(head), 0) + head))
