"""Stored files, read for a listener: as they lie there, or decoded to PCM."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import soundfile
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from producers.gateway.problems import ProblemError
from producers.gateway.ranged_file import BLOCK_BYTES, RangedFile
from producers.gateway.resampling import resampler

_PIECE_BYTES = 65_536
_BLOCK_FRAMES = 24_000
_THREADS = 32  # each may wait for storage; they are no measure of computing

_Source = RangedFile | io.BytesIO


class Recording:
    """A stored file that was opened: signed 16-bit little-endian mono PCM at `sample_rate`, block by block."""

    def __init__(
        self,
        source: soundfile.SoundFile,
        file: _Source,
        threads: ThreadPoolExecutor,
        *,
        sample_rate: int,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._source, self._file, self._threads, self._on_close = source, file, threads, on_close
        self._resampler = resampler(source.samplerate, sample_rate)
        self.sample_rate = sample_rate

    async def blocks(self) -> AsyncGenerator[bytes]:
        """About a second each.

        Raises:
            ProblemError: 502, storage stopped giving it out, or what it gave cannot be decoded.
        """
        loop = asyncio.get_running_loop()
        reading: asyncio.Future[bytes] | None = None
        try:
            while True:
                reading = loop.run_in_executor(self._threads, self._next_block)
                block = await asyncio.shield(reading)
                if getattr(self._file, "error", None) is not None:
                    raise _unavailable()
                if not block:
                    return
                yield block
        except soundfile.SoundFileError:
            raise _unavailable() from None
        finally:
            # A file that is closed under the thread that reads it takes the whole process with it.
            if reading is None or reading.done():
                self.close()
            else:
                reading.add_done_callback(self._read_after_all)

    def close(self) -> None:
        """Let go of the file; never while it is read."""
        self._source.close()
        self._on_close()

    def _read_after_all(self, reading: "asyncio.Future[bytes]") -> None:
        if not reading.cancelled():
            reading.exception()  # nobody listens any more
        self.close()

    def _next_block(self) -> bytes:
        while True:
            pcm = bytes(self._source.read(_BLOCK_FRAMES, dtype="int16").astype("<i2", copy=False).tobytes())
            if self._resampler is None:
                return pcm
            if not pcm:
                rest, self._resampler = self._resampler.resampled(b"", last=True), None
                return rest
            if block := self._resampler.resampled(pcm):
                return block


class StoredAudio:
    """Fetches renditions by their URL. Make one with `stored_audio`.

    A recording keeps a few blocks of its file. Where the store gives no ranges out the whole file is in memory, and
    all such files together are at most `max_whole_bytes`.
    """

    def __init__(self, http: ClientSession, threads: ThreadPoolExecutor, *, timeout_s: float, max_whole_bytes: int):
        self._http, self._threads, self._timeout_s = http, threads, timeout_s
        self._room = max_whole_bytes

    async def file(self, url: str) -> AsyncGenerator[bytes]:
        """The bytes of a file, as they come.

        Raises:
            ProblemError: 502, storage does not give it out.
        """
        try:
            async with self._http.get(url, timeout=self._timeout()) as response:
                if response.status != 200:
                    raise _unavailable()
                async for block in response.content.iter_chunked(_PIECE_BYTES):
                    yield block
        except (ClientError, TimeoutError, ValueError):
            raise _unavailable() from None

    async def recording(self, url: str, from_sample: int = 0, *, sample_rate: int | None = None) -> Recording:
        """A file of any format of ours.

        Args:
            url: where it is.
            from_sample: where to begin, counted at `sample_rate`.
            sample_rate: Hz of what is heard; the file's own when None.

        Raises:
            ProblemError: 502, storage does not give it out, or it cannot be read; 503, no room for it.
        """
        file, free = await self._opened(url)
        loop = asyncio.get_running_loop()
        try:
            source = await loop.run_in_executor(self._threads, _sought, file, from_sample, sample_rate)
        except soundfile.SoundFileError:
            free()
            raise _unavailable() from None
        except BaseException:
            free()
            raise
        rate = sample_rate or source.samplerate
        return Recording(source, file, self._threads, sample_rate=rate, on_close=free)

    async def _opened(self, url: str) -> tuple[_Source, Callable[[], None]]:
        """The file, and what gives its room back."""
        try:
            async with self._http.get(url, headers=_range(0), timeout=self._timeout()) as response:
                if response.status == 206:
                    size = int(response.headers.get("Content-Range", "").rpartition("/")[2])
                    first = await response.content.readexactly(min(size, BLOCK_BYTES))
                    return RangedFile(
                        partial(self._block, url), size, first, timeout_s=2 * self._timeout_s
                    ), lambda: None
                if response.status != 200:
                    raise _unavailable()
                return await self._whole(response)
        except (ClientError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            raise _unavailable() from None

    async def _whole(self, response: ClientResponse) -> tuple[_Source, Callable[[], None]]:
        data = io.BytesIO()
        with self._taken(data):
            async for piece in response.content.iter_chunked(_PIECE_BYTES):
                self._room -= len(piece)
                data.write(piece)
                if self._room < 0:
                    raise ProblemError(503, "too_many_listeners", "no room for one more stored audio", retry_after_s=5)
        held = data.tell()
        data.seek(0)

        def free() -> None:
            nonlocal held
            self._room, held = self._room + held, 0

        return data, free

    @contextmanager
    def _taken(self, data: io.BytesIO) -> Iterator[None]:
        """What was taken comes back when the file does not come whole."""
        try:
            yield
        except BaseException:
            self._room += data.tell()
            raise

    async def _block(self, url: str, number: int) -> bytes:
        async with self._http.get(url, headers=_range(number), timeout=self._timeout()) as response:
            if response.status != 206:
                raise _unavailable()
            return await response.read()

    def _timeout(self) -> ClientTimeout:
        return ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s)


@contextmanager
def stored_audio(http: ClientSession, *, timeout_s: float, max_whole_bytes: int) -> Iterator[StoredAudio]:
    """Access to stored audio, with threads of its own for decoding: they wait for storage, and others must not wait
    for them."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
    try:
        yield StoredAudio(http, threads, timeout_s=timeout_s, max_whole_bytes=max_whole_bytes)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _sought(file: _Source, from_sample: int, sample_rate: int | None) -> soundfile.SoundFile:
    source = soundfile.SoundFile(file)
    frame = from_sample * source.samplerate // sample_rate if sample_rate else from_sample
    source.seek(min(frame, source.frames))
    return source


def _range(number: int) -> dict[str, str]:
    start = number * BLOCK_BYTES
    return {"Range": f"bytes={start}-{start + BLOCK_BYTES - 1}"}


def _unavailable() -> ProblemError:
    return ProblemError(502, "storage_unavailable", "the stored audio cannot be fetched", retry_after_s=1)
