"""Cuts a take's PCM into the chunks that travel on the bus. Pure."""

from collections.abc import Iterator

from schemas.audio import BYTES_PER_SAMPLE


class ChunkCutter:
    """Gathers PCM of one take and hands out chunks of even length; the first is shorter, so a listener hears early.

    What comes out, joined, is exactly what went in; only the last chunk may be shorter than asked.
    """

    def __init__(self, sample_rate: int, *, first_s: float, chunk_s: float) -> None:
        self._chunk_bytes = max(1, round(sample_rate * chunk_s)) * BYTES_PER_SAMPLE
        self._wanted = max(1, round(sample_rate * first_s)) * BYTES_PER_SAMPLE
        self._gathered = bytearray()

    def feed(self, pcm: bytes) -> Iterator[bytes]:
        """Add samples (int16 little-endian, whole samples) and take out what is full."""
        self._gathered += pcm
        while len(self._gathered) >= self._wanted:
            yield self._take(self._wanted)
            self._wanted = self._chunk_bytes

    def rest(self) -> bytes:
        """What is left at the end of the take; possibly nothing."""
        return self._take(len(self._gathered))

    def _take(self, count: int) -> bytes:
        chunk = bytes(self._gathered[:count])
        del self._gathered[:count]
        return chunk
