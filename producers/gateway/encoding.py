"""Files made while their audio is being made: PCM in, bytes of the file out, as soon as the encoder lets go of them.

libsndfile wants to write its header anew at the end; what has been sent cannot be changed any more, so headers that
hold a length say "unknown" instead (WAV), and decoders read on to the end.
"""

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from typing import Literal, Protocol

import numpy
import soundfile

from producers.gateway.resampling import resampler

StreamFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[StreamFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_CONTAINERS = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz; the codec knows no others
_OPUS_RATE = 24_000
PCM_RATE = 24_000
"""Hz of the `pcm` format, as OpenAI's is: nothing in it could tell another."""
_MP3_LEVEL = 0.6  # 64 kbit/s at 24 kHz mono
_UNKNOWN_LENGTH = 0xFFFFFFFF


class Encoder(Protocol):
    """Takes PCM, gives bytes of a file. Both calls may compute: from a thread only."""

    def encode(self, pcm: bytes) -> bytes:
        """Bytes that are ready after this PCM; possibly none."""

    def finish(self) -> bytes:
        """The rest of the file."""


class _Drain(io.RawIOBase):
    """What the encoder writes, handed out once; changes to what is handed out are lost."""

    def __init__(self) -> None:
        self._handed_out = self._position = 0
        self._kept = bytearray()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._handed_out + len(self._kept)
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence]
        return self._position

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        new = bytes(data)
        start = self._position - self._handed_out
        self._position += len(new)
        if start < 0:
            new = new[-start:]
            start = 0
        self._kept[start : start + len(new)] = new
        return len(data)

    def drained(self) -> bytes:
        out = bytes(self._kept)
        self._handed_out += len(out)
        self._kept.clear()
        return out


class _FileEncoder:
    def __init__(self, audio_format: StreamFormat, sample_rate: int) -> None:
        container, subtype = _CONTAINERS[audio_format]
        rate = sample_rate if audio_format != "opus" or sample_rate in _OPUS_RATES else _OPUS_RATE
        self._drain = _Drain()
        # A constant bit rate lets players tell the length of an MP3 whose header could not be written at the end.
        constant = {"bitrate_mode": "CONSTANT", "compression_level": _MP3_LEVEL} if audio_format == "mp3" else {}
        self._file = soundfile.SoundFile(self._drain, "w", rate, 1, subtype=subtype, format=container, **constant)
        self._resampler = resampler(sample_rate, rate)

    def encode(self, pcm: bytes) -> bytes:
        self._write(pcm, last=False)
        return self._drain.drained()

    def finish(self) -> bytes:
        self._write(b"", last=True)
        self._file.close()
        return self._drain.drained()

    def _write(self, pcm: bytes, *, last: bool) -> None:
        pcm = self._resampler.resampled(pcm, last=last) if self._resampler else pcm
        self._file.write(numpy.frombuffer(pcm, dtype="<i2"))


class _WavEncoder:
    """A header before PCM as it is."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def encode(self, pcm: bytes) -> bytes:
        out, self._header = self._header + pcm, b""
        return out

    def finish(self) -> bytes:
        return self.encode(b"")


class _PcmEncoder:
    """PCM at the one rate that clients of headerless audio count on."""

    def __init__(self, sample_rate: int) -> None:
        self._resampler = resampler(sample_rate, PCM_RATE)

    def encode(self, pcm: bytes) -> bytes:
        return self._resampler.resampled(pcm) if self._resampler else pcm

    def finish(self) -> bytes:
        return self._resampler.resampled(b"", last=True) if self._resampler else b""


def new_encoder(audio_format: StreamFormat, sample_rate: int) -> Encoder:
    """An encoder for 16-bit mono PCM."""
    if audio_format == "pcm":
        return _PcmEncoder(sample_rate)
    if audio_format == "wav":
        return _WavEncoder(wav_header(sample_rate))
    return _FileEncoder(audio_format, sample_rate)


def wav_header(sample_rate: int) -> bytes:
    """44 bytes, with lengths that say "to the end"."""
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, sample_rate * 2, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", _UNKNOWN_LENGTH, b"WAVE")
        + layout
        + struct.pack("<4sI", b"data", _UNKNOWN_LENGTH)
    )


async def encoded(pcm: AsyncIterator[bytes], audio_format: StreamFormat, sample_rate: int) -> AsyncIterator[bytes]:
    """A file, piece by piece, of PCM that comes piece by piece."""
    encoder = await asyncio.to_thread(new_encoder, audio_format, sample_rate)
    async for block in pcm:
        if piece := await asyncio.to_thread(encoder.encode, block):
            yield piece
    if piece := await asyncio.to_thread(encoder.finish):
        yield piece
