"""A stored file read where it lies: a decoder asks for bytes, and a few blocks of the file are in memory at a time."""

import asyncio
import io
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

BLOCK_BYTES = 131_072
_BLOCKS_KEPT = 4  # a decoder that seeks goes back and forth within a narrow part of the file

Fetch = Callable[[int], Coroutine[Any, Any, bytes]]
"""Gives the block with this number."""


class RangedFile(io.RawIOBase):
    """Read by a decoder in a thread; the blocks are fetched on the event loop, which must not be the reading thread's.

    No error may leave a callback of libsndfile: what goes wrong is kept in `error`, and the file seems to end there.
    """

    def __init__(self, fetch: Fetch, size: int, first: bytes, *, timeout_s: float) -> None:
        self._fetch, self._size, self._timeout_s = fetch, size, timeout_s
        self._loop = asyncio.get_running_loop()
        self._position = 0
        self._blocks = OrderedDict({0: first})
        self.error: Exception | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere, without fetching anything yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As much as one block holds and the buffer takes; 0 at the end, and after an error."""
        number, start = divmod(self._position, BLOCK_BYTES)
        data = self._block(number)[start : start + len(buffer)] if self._position < self._size else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            block = self._fetched(number)
            if len(self._blocks) >= _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
            self._blocks[number] = block
        self._blocks.move_to_end(number)
        return block

    def _fetched(self, number: int) -> bytes:
        if self.error is not None:
            return b""
        fetching = asyncio.run_coroutine_threadsafe(self._fetch(number), self._loop)
        try:
            return fetching.result(self._timeout_s)
        except Exception as error:  # whatever it is: see the class
            fetching.cancel()
            self.error = error
            return b""
