"""Audio of takes in the making, for listeners: kept from the first chunk, bounded in every direction.

Pure bookkeeping; `audio_feed` brings the records. A listener that comes late starts at the first chunk; one that is
slow falls back on what is kept and is told when that is gone, and never slows anybody else.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from schemas.audio import BYTES_PER_SAMPLE, AudioChunk


class LaggedError(Exception):
    """The listener was so slow that audio it has not heard is gone."""


@dataclass(slots=True)
class LiveTake:
    """One take as heard so far. Chunks are contiguous from 0."""

    take_id: str
    sample_rate: int
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0  # bytes kept
    ended: bool = False
    abandoned: bool = False


class TakeHub:
    """The live takes by fingerprint, the latest heard of last."""

    def __init__(self, *, max_bytes: int, max_take_bytes: int) -> None:
        self._takes: OrderedDict[str, LiveTake] = OrderedDict()
        self._max_bytes = max_bytes
        self._max_take_bytes = max_take_bytes
        self._size = 0
        self._changed: dict[str, asyncio.Event] = {}

    def chunk(self, chunk: AudioChunk) -> None:
        """A chunk came by. The first of a new take replaces the former take of the same synthesis."""
        take = self._takes.get(chunk.fingerprint)
        if take is None or (take.take_id != chunk.take_id and chunk.index == 0):
            self._drop(chunk.fingerprint)
            if chunk.index != 0:
                return  # its beginning went by before this gateway listened
            take = self._takes[chunk.fingerprint] = LiveTake(chunk.take_id, chunk.sample_rate)
        if take.take_id != chunk.take_id or chunk.index != len(take.chunks):
            return  # a repeat, or a take that lost against a newer one
        take.chunks.append(chunk.pcm)
        take.size += len(chunk.pcm)
        self._size += len(chunk.pcm)
        self._takes.move_to_end(chunk.fingerprint)
        self._make_room(chunk.fingerprint)
        self._wake(chunk.fingerprint)

    def ended(self, fingerprint: str, take_id: str, *, abandoned: bool) -> None:
        """No more chunks of this take will come."""
        take = self._takes.get(fingerprint)
        if take is not None and take.take_id == take_id:
            take.ended, take.abandoned = not abandoned, abandoned
            self._wake(fingerprint)

    def take(self, fingerprint: str) -> LiveTake | None:
        """The live take of a synthesis."""
        return self._takes.get(fingerprint)

    async def changed(self, fingerprint: str, timeout_s: float) -> bool:
        """Wait until something new is heard of the synthesis; False after the timeout."""
        event = self._changed.setdefault(fingerprint, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self, fingerprint: str) -> None:
        event = self._changed.pop(fingerprint, None)
        if event is not None:
            event.set()

    def _drop(self, fingerprint: str) -> None:
        take = self._takes.pop(fingerprint, None)
        if take is not None:
            self._size -= take.size
            take.abandoned = not take.ended

    def _make_room(self, keep: str) -> None:
        if self._takes[keep].size > self._max_take_bytes:
            self._drop(keep)
        while self._size > self._max_bytes and self._takes:
            self._drop(next(iter(self._takes)))


@dataclass(slots=True)
class Listener:
    """Where one listener stands in one take; survives a reconnect by its offset in samples."""

    samples: int = 0

    def next_pcm(self, take: LiveTake) -> bytes:
        """All that is kept and not heard yet, possibly nothing."""
        wanted = self.samples * BYTES_PER_SAMPLE
        if wanted >= take.size:
            return b""
        position, parts = 0, []
        for chunk in take.chunks:
            end = position + len(chunk)
            if end > wanted:
                parts.append(chunk[max(0, wanted - position) :])
            position = end
        pcm = b"".join(parts)
        self.samples += len(pcm) // BYTES_PER_SAMPLE
        return pcm
