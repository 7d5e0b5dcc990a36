"""Numbered lines of a file or a pipe, of bounded length, without holding up the event loop while a pipe is quiet."""

import asyncio
import io
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

# Well above the longest valid request: 10,000 characters, each up to 12 bytes as \u escapes, and the metadata.
MAX_LINE_BYTES = 262_144
_CHUNK_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end. `content` is None when it was longer than `MAX_LINE_BYTES`."""

    number: int
    content: bytes | None


class LineSplitter:
    """Cuts pieces of a stream into lines. Pure; holds at most one unfinished line."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._overlong = False
        self._number = 0

    def feed(self, piece: bytes) -> list[Line]:
        """The lines that end within this piece; empty ones are counted and left out."""
        *ends, rest = piece.split(b"\n")
        lines = [line for end in ends if (line := self._ended(end)) is not None]
        self._keep(rest)
        return lines

    def finish(self) -> list[Line]:
        """The last line, when the stream does not end with a newline."""
        line = self._ended(b"") if self._rest or self._overlong else None
        return [line] if line is not None else []

    def _keep(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > self._limit:
            self._overlong = True
        if self._overlong:
            self._rest.clear()

    def _ended(self, last: bytes) -> Line | None:
        self._keep(last)
        content, overlong = bytes(self._rest), self._overlong
        self._rest.clear()
        self._overlong = False
        self._number += 1
        if overlong:
            return Line(self._number, None)
        return Line(self._number, content) if content.strip() else None


async def line_batches(file: IO[bytes]) -> AsyncIterator[list[Line]]:
    """Lines as they come, those that came together in one list."""
    splitter = LineSplitter()
    async for piece in _pieces(file):
        if lines := splitter.feed(piece):
            yield lines
    if lines := splitter.finish():
        yield lines


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    if not _may_wait(file):
        while piece := file.read(_CHUNK_BYTES):
            yield piece
        return
    async with _pipe_reader(file) as reader:
        while piece := await reader.read(_CHUNK_BYTES):
            yield piece


def _may_wait(file: IO[bytes]) -> bool:
    """Whether reading can wait for somebody: pipes, sockets and terminals, but not files."""
    try:
        mode = os.fstat(file.fileno()).st_mode
    except (OSError, io.UnsupportedOperation):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()


@asynccontextmanager
async def _pipe_reader(file: IO[bytes]) -> AsyncIterator[asyncio.StreamReader]:
    descriptor = file.fileno()
    blocking = os.get_blocking(descriptor)
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    # A copy, for the transport closes what it reads; the flag it sets is shared and put back.
    copy = os.fdopen(os.dup(descriptor), "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), copy
    )
    try:
        yield reader
    finally:
        transport.close()
        os.set_blocking(descriptor, blocking)
