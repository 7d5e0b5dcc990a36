"""PCM at another sample rate."""

import numpy
import soxr


class Resampler:
    """Signed 16-bit little-endian mono PCM, block by block. Computes: from a thread only."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="int16")

    def resampled(self, pcm: bytes, *, last: bool = False) -> bytes:
        """What is ready after this PCM, possibly nothing; with `last` all of the rest."""
        samples = numpy.frombuffer(pcm, dtype="<i2").astype(numpy.int16, copy=False)
        return bytes(self._stream.resample_chunk(samples, last=last).astype("<i2", copy=False).tobytes())


def resampler(from_rate: int, to_rate: int) -> Resampler | None:
    """A resampler; None when the rates are the same."""
    return None if from_rate == to_rate else Resampler(from_rate, to_rate)
