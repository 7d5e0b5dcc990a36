"""Fetches the audio of a completion, and keeps it only when it is what the completion says."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from producers.errors import DownloadError
from schemas.completions import AudioInfo

_CHUNK_BYTES = 65_536
OnBytes = Callable[[int], None]


async def download(
    audio: AudioInfo,
    target: Path,
    *,
    session: aiohttp.ClientSession | None = None,
    timeout_s: float = 60.0,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Fetch `audio.url` into `target`, which appears whole or not at all.

    Args:
        audio: from a completion; size and checksum are held against what comes.
        target: the file to write; replaced when it exists.
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
        raise DownloadError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


async def _fetch(session: aiohttp.ClientSession, audio: AudioInfo, target: Path, on_bytes: OnBytes | None) -> None:
    async with session.get(audio.url) as response:
        if response.status != 200:
            raise DownloadError(f"the object store answered {response.status} {response.reason or ''}".rstrip())
        handle, name = await asyncio.to_thread(tempfile.mkstemp, dir=target.parent, prefix=f".{target.name}.")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
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
                raise DownloadError(
                    f"the object is not the completion's: {size} of {audio.bytes} bytes, or another checksum"
                )
            # mkstemp makes private files; audio is as public as the folder it lies in.
            await asyncio.to_thread(_place, part, target)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)


def _place(part: Path, target: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)
    part.replace(target)
