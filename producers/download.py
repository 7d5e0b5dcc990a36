"""Fetches the audio of a completion, and hands it on only when it is what the completion says."""

import asyncio
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlsplit

import aiohttp

from producers.errors import DownloadError
from schemas.completions import AudioInfo

_CHUNK_BYTES = 65_536
# Between two looks whether somebody reads from a FIFO; seconds.
_READER_POLL_S = 0.05
OnBytes = Callable[[int], None]
TargetT = TypeVar("TargetT", bound=Path | IO[bytes])


async def download(
    audio: AudioInfo,
    target: TargetT,
    *,
    session: aiohttp.ClientSession | None = None,
    timeout_s: float = 60.0,
    on_bytes: OnBytes | None = None,
) -> TargetT:
    """Fetch `audio.url` into `target`. A regular file appears whole or not at all.

    Args:
        audio: from a completion; size and checksum are held against what comes.
        target: the file to write, replaced when it exists; behind a symbolic link, what it points to. A device or a
            FIFO is written into, as an open file is.
        session: for many downloads; one of its own when absent.
        timeout_s: for the whole download.
        on_bytes: called with the number of bytes of every piece.

    Returns:
        `target`.

    Raises:
        DownloadError: the store does not answer, refuses, or sends something else; or the file cannot be written.
    """
    host = urlsplit(audio.url).netloc
    try:
        async with asyncio.timeout(timeout_s):
            if session is not None:
                await _fetch(session, audio, target, on_bytes)
            else:
                async with aiohttp.ClientSession() as own:
                    await _fetch(own, audio, target, on_bytes)
    except TimeoutError:
        raise DownloadError(f"the audio did not come from {host} within {timeout_s:g} s") from None
    except (aiohttp.ClientError, ValueError) as error:
        # The address itself stays out of messages: a presigned one is a key to the file.
        raise DownloadError(
            f"the audio cannot be fetched from {host or 'its address'}: {type(error).__name__}"
        ) from None
    except OSError as error:
        name = target if isinstance(target, Path) else "the output"
        raise DownloadError(f"{name} cannot be written: {error.strerror or error}") from None
    return target


async def _fetch(
    session: aiohttp.ClientSession, audio: AudioInfo, target: Path | IO[bytes], on_bytes: OnBytes | None
) -> None:
    async with session.get(audio.url) as response:
        if response.status != 200:
            raise DownloadError(f"the object store answered {response.status} {response.reason or ''}".rstrip())
        # Replacing what a link points to keeps the link.
        place = await asyncio.to_thread(target.resolve) if isinstance(target, Path) else None
        if place is not None and await asyncio.to_thread(_replaceable, place):
            await _into_file(response, audio, place, on_bytes)
        else:
            await _into_stream(response, audio, place or target, on_bytes)


async def _into_file(
    response: aiohttp.ClientResponse, audio: AudioInfo, target: Path, on_bytes: OnBytes | None
) -> None:
    handle, name = await asyncio.to_thread(tempfile.mkstemp, dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            await _checked(response, audio, file, on_bytes)
        await asyncio.to_thread(_place, part, target)
    finally:
        await asyncio.to_thread(part.unlink, missing_ok=True)


async def _into_stream(
    response: aiohttp.ClientResponse, audio: AudioInfo, target: Path | IO[bytes], on_bytes: OnBytes | None
) -> None:
    """What cannot be replaced gets its bytes only after they were checked."""
    with tempfile.TemporaryFile() as file:
        await _checked(response, audio, file, on_bytes)
        file.seek(0)
        if isinstance(target, Path):
            async with _opened(target) as stream:
                await asyncio.to_thread(shutil.copyfileobj, file, stream)
        else:
            await asyncio.to_thread(shutil.copyfileobj, file, target)
            await asyncio.to_thread(target.flush)


async def _checked(
    response: aiohttp.ClientResponse, audio: AudioInfo, file: IO[bytes], on_bytes: OnBytes | None
) -> None:
    digest = hashlib.sha256()
    size = 0
    async for piece in response.content.iter_chunked(_CHUNK_BYTES):
        size += len(piece)
        if size > audio.bytes:
            raise DownloadError(f"the object is longer than the {audio.bytes} bytes of the completion")
        digest.update(piece)
        await asyncio.to_thread(file.write, piece)
        if on_bytes is not None:
            on_bytes(len(piece))
    if size != audio.bytes or digest.hexdigest() != audio.sha256:
        raise DownloadError(f"the object is not the completion's: {size} of {audio.bytes} bytes, or another checksum")


@asynccontextmanager
async def _opened(target: Path) -> AsyncIterator[IO[bytes]]:
    """A device or a FIFO, open for writing. Waiting for a FIFO's reader can be cancelled."""
    while True:
        try:
            handle = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not await asyncio.to_thread(target.is_fifo):
                raise
        await asyncio.sleep(_READER_POLL_S)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as stream:
        yield stream


def _replaceable(target: Path) -> bool:
    """Whether nothing is lost with what is there: devices and FIFOs are not ours to remove."""
    try:
        return stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        return True


def _place(part: Path, target: Path) -> None:
    # mkstemp makes private files; audio is as public as the folder it lies in.
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)
    part.replace(target)
