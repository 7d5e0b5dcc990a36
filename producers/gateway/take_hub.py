"""Audio of takes in the making, for listeners: kept from the first chunk, bounded in every direction.

Pure bookkeeping; `feeds` brings the records. A listener that comes late starts at the first chunk; one that is slow
finds what is kept, or that it is gone, and never slows anybody else.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.audio import BYTES_PER_SAMPLE, AudioChunk


@dataclass(slots=True)
class LiveTake:
    """One take as heard so far. Chunks are contiguous from 0."""

    take_id: str
    sample_rate: int  # Hz
    pcm: bytearray = field(default_factory=bytearray)
    chunks: int = 0
    ended: bool = False
    """All of it is here, and it is good."""
    gone: bool = False
    """Given up by its worker, or thrown away here: nothing more will come of it."""

    def from_sample(self, sample: int, max_bytes: int) -> bytes:
        """At most so much of what is here, from a sample on; possibly nothing."""
        start = sample * BYTES_PER_SAMPLE
        return bytes(memoryview(self.pcm)[start : start + max_bytes])


class TakeHub:
    """The live takes by fingerprint, the latest heard of last."""

    def __init__(self, *, max_bytes: int, max_take_bytes: int) -> None:
        self._takes: OrderedDict[str, LiveTake] = OrderedDict()
        self._max_bytes = max_bytes
        self._max_take_bytes = max_take_bytes
        self._size = 0
        self._ears: dict[str, set[asyncio.Event]] = {}
        self.sample_rate = 0
        """Hz of the latest take, and likely of the next; 0 until one was heard."""

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._size

    def chunk(self, chunk: AudioChunk) -> None:
        """A chunk came by. The first of a new take replaces the former take of the same synthesis."""
        take = self._takes.get(chunk.fingerprint)
        if take is None or (take.take_id != chunk.take_id and chunk.index == 0 and not take.ended):
            self._drop(chunk.fingerprint)
            if chunk.index != 0:
                return  # its beginning went by before this gateway listened
            take = self._takes[chunk.fingerprint] = LiveTake(chunk.take_id, chunk.sample_rate)
            self.sample_rate = chunk.sample_rate
        if take.take_id != chunk.take_id or chunk.index != take.chunks or take.gone:
            return  # a repeat, or a take that lost against another
        take.pcm += chunk.pcm
        take.chunks += 1
        self._size += len(chunk.pcm)
        self._takes.move_to_end(chunk.fingerprint)
        self._make_room(chunk.fingerprint)
        self._wake(chunk.fingerprint)

    def finished(self, fingerprint: str, take_id: str, chunks: int) -> None:
        """The take is complete."""
        take = self._takes.get(fingerprint)
        if take is not None and take.take_id == take_id and take.chunks == chunks:
            take.ended = True
            self._wake(fingerprint)

    def abandoned(self, fingerprint: str, take_id: str) -> None:
        """What came of this take is worth nothing."""
        take = self._takes.get(fingerprint)
        if take is not None and take.take_id == take_id and not take.ended:
            self._drop(fingerprint)

    def forget(self, fingerprint: str) -> None:
        """The synthesis failed: what was heard of it is worth nothing."""
        self._drop(fingerprint)

    def forget_unfinished(self) -> None:
        """The bus was away: takes in the making have holes now."""
        for fingerprint in [name for name, take in self._takes.items() if not take.ended]:
            self._drop(fingerprint)

    def take(self, fingerprint: str) -> LiveTake | None:
        """The live take of a synthesis."""
        return self._takes.get(fingerprint)

    @contextmanager
    def ear(self, fingerprint: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something new is heard of the synthesis; the listener clears it."""
        event = asyncio.Event()
        self._ears.setdefault(fingerprint, set()).add(event)
        try:
            yield event
        finally:
            ears = self._ears[fingerprint]
            ears.discard(event)
            if not ears:
                del self._ears[fingerprint]

    def _wake(self, fingerprint: str) -> None:
        for event in self._ears.get(fingerprint, ()):
            event.set()

    def _drop(self, fingerprint: str) -> None:
        take = self._takes.pop(fingerprint, None)
        if take is not None:
            self._size -= len(take.pcm)
            take.gone = not take.ended
            self._wake(fingerprint)

    def _make_room(self, latest: str) -> None:
        if len(self._takes[latest].pcm) > self._max_take_bytes:
            self._drop(latest)
        while self._size > self._max_bytes and self._takes:
            self._drop(next(iter(self._takes)))
