"""Stored files, read for a listener: as they lie there, or decoded to PCM."""

import asyncio
import io
from collections.abc import AsyncIterator

import soundfile
from aiohttp import ClientError, ClientSession, ClientTimeout

from producers.gateway.problems import ProblemError

_BLOCK_BYTES = 65_536
_BLOCK_FRAMES = 24_000


class Recording:
    """A stored file that was opened: signed 16-bit little-endian mono PCM, block by block."""

    def __init__(self, source: soundfile.SoundFile) -> None:
        self._source = source
        self.sample_rate: int = source.samplerate

    async def blocks(self) -> AsyncIterator[bytes]:
        """About a second each."""
        with self._source:
            while block := await asyncio.to_thread(_next_block, self._source):
                yield block


class StoredAudio:
    """Fetches renditions by their URL."""

    def __init__(self, http: ClientSession, *, timeout_s: float, max_decoded_bytes: int) -> None:
        self._http, self._timeout_s, self._max_bytes = http, timeout_s, max_decoded_bytes

    async def file(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a file, as they come.

        Raises:
            ProblemError: 502, storage does not give it out.
        """
        timeout = ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s)
        try:
            async with self._http.get(url, timeout=timeout) as response:
                if response.status != 200:
                    raise _unavailable()
                async for block in response.content.iter_chunked(_BLOCK_BYTES):
                    yield block
        except (ClientError, TimeoutError, ValueError):
            raise _unavailable() from None

    async def recording(self, url: str, from_sample: int = 0) -> Recording:
        """A file of any format of ours, from a sample on.

        Raises:
            ProblemError: 502, storage does not give it out, or it cannot be read.
        """
        data = io.BytesIO()
        async for block in self.file(url):
            data.write(block)
            if data.tell() > self._max_bytes:
                raise ProblemError(502, "storage_unavailable", "the stored audio is too long to be streamed; fetch it")
        try:
            return Recording(await asyncio.to_thread(_opened, data, from_sample))
        except soundfile.SoundFileError:
            raise _unavailable() from None


def _opened(data: io.BytesIO, from_sample: int) -> soundfile.SoundFile:
    data.seek(0)
    source = soundfile.SoundFile(data)
    source.seek(min(from_sample, source.frames))
    return source


def _next_block(source: soundfile.SoundFile) -> bytes:
    return bytes(source.read(_BLOCK_FRAMES, dtype="int16").astype("<i2", copy=False).tobytes())


def _unavailable() -> ProblemError:
    return ProblemError(502, "storage_unavailable", "the stored audio cannot be fetched", retry_after_s=1)
