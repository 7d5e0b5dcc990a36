"""Who speaks: the embedding of each voice of the catalogue, in the package's encoding.

A voice is drawn from its seed by a formula written out here, as neither torch nor numpy promises that the same seed
makes the same normal numbers in its next version: Philox's raw bits, which are a published standard, and Box-Muller.
"""

import hashlib
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.voices import Catalogue
from synth_consumer.engines.protocol import EngineUnavailableError

_FORM = 'chattts = { speaker_seed = 2222 }, or speaker = "…" as the package encodes an embedding'


def speakers(chat: Any, catalogue: Catalogue, engine: str) -> dict[str, str]:
    """The encoded embedding of each voice that has a table for the engine, by name.

    Raises:
        EngineUnavailableError: there is no such voice, or one's table does not tell who speaks.
    """
    tables = {name: voice.engine_params.get(engine) for name, voice in catalogue.voices.items()}
    told = {name: _speaker(chat.speaker, name, table) for name, table in tables.items() if table is not None}
    if not told:
        raise EngineUnavailableError(f"no voice of the catalogue has a table {engine}; one is: {_FORM}")
    return told


def digest(chat: Any, told: Mapping[str, str]) -> str:
    """Of names and embeddings, 8 hex digits; not of the encoding, whose compression may change."""
    total = hashlib.sha256()
    for name in sorted(told):
        total.update(name.encode() + b"\0" + chat.speaker._decode(told[name]).tobytes())
    return total.hexdigest()[:8]


def normal(seed: int, count: int) -> NDArray[np.float64]:
    """Standard normal numbers: Box and Muller's formula over Philox 4x64 with the seed as its key."""
    bits = np.random.Philox(key=seed).random_raw(2 * count)
    # 53 bits each, in (0, 1]: the logarithm of 0 is not a number.
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 1) / 2**53
    drawn: NDArray[np.float64] = np.sqrt(-2 * np.log(uniform[:count])) * np.cos(2 * np.pi * uniform[count:])
    return drawn


def _speaker(speaker: Any, name: str, table: Mapping[str, Any]) -> str:
    written, seed = table.get("speaker"), table.get("speaker_seed")
    if written is not None:
        return _checked(speaker, name, written)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise EngineUnavailableError(f"voice {name} does not tell ChatTTS who speaks; it needs {_FORM}")
    std, mean = (part.double().cpu().numpy() for part in (speaker.std, speaker.mean))
    embedding = (normal(seed, int(speaker.dim)) * std + mean).astype(np.float16)
    encoded: str = speaker._encode(importlib.import_module("torch").from_numpy(embedding))
    return encoded


def _checked(speaker: Any, name: str, written: object) -> str:
    """A wrong one would fail in the middle of the first take."""
    try:
        size = len(speaker._decode(written))
    except Exception as error:
        reason = f"is not readable ({type(error).__name__})"
    else:
        if size == speaker.dim:
            return str(written)
        reason = f"has {size} values, these weights take {speaker.dim}"
    raise EngineUnavailableError(f"the speaker of voice {name} {reason}; it needs {_FORM}")
