"""Float samples of an engine to the PCM that travels on the bus. Only the engine process imports this."""

import numpy as np

from synth_consumer.engines.protocol import Pcm

_FULL_SCALE = 32_767


class NotFiniteError(ValueError):
    """Samples hold NaN or infinity: the audio is worth nothing."""


def to_pcm16(samples: Pcm) -> bytes:
    """Samples in [-1, 1], shape (n,), to int16 little-endian; what lies outside is clipped.

    Raises:
        NotFiniteError: a sample is NaN or infinite.
    """
    flat = np.asarray(samples, dtype=np.float32).reshape(-1)
    if not np.isfinite(flat).all():
        raise NotFiniteError("samples are not finite")
    return np.rint(np.clip(flat, -1.0, 1.0) * _FULL_SCALE).astype("<i2").tobytes()
