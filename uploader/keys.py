"""Object keys and metadata.

A key names what is heard, not the bytes of the file: fingerprint, then the digest of the samples, then the format:
`audio/3f/3f2a…/9c01d2e4f5a6b7c8.opus`. Equal samples meet at one key although an encoder may make other bytes
each time (Ogg does), and whoever writes first stays, so an object never changes once it is there. The FLAC file is
the master.

Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from schemas.codes import AudioFormat
from schemas.completions import EngineInfo

MASTER = AudioFormat.FLAC
CACHE_CONTROL = "public, max-age=31536000, immutable"
_DIGEST_CHARS = 16  # 64 bits, within one fingerprint


@dataclass(frozen=True, slots=True)
class SynthesisFacts:
    """What is true of every rendition of one synthesis."""

    fingerprint: str
    pcm_sha256: str
    samples: int
    sample_rate: int  # Hz, of the master
    engine: EngineInfo
    take_id: str
    truncated: bool

    @property
    def duration_s(self) -> float:
        """Seconds, rounded to the millisecond."""
        return round(self.samples / self.sample_rate, 3)


def folder_of(prefix: str, fingerprint: str) -> str:
    """Where all objects of a fingerprint stand, with a slash at the end."""
    return f"{prefix}audio/{fingerprint[:2]}/{fingerprint}/"


def object_key(prefix: str, facts: SynthesisFacts, audio_format: AudioFormat) -> str:
    """The key of one rendition."""
    return f"{folder_of(prefix, facts.fingerprint)}{facts.pcm_sha256[:_DIGEST_CHARS]}.{audio_format}"


def metadata_of(facts: SynthesisFacts, file_sha256: str, *, file_rate: int) -> dict[str, str]:
    """User metadata of an object: ASCII, as HTTP headers want it.

    Args:
        facts: of the synthesis.
        file_sha256: of the object itself.
        file_rate: sample rate of the object itself, in Hz; `sample-rate` is the master's.
    """
    return {
        "fingerprint": facts.fingerprint,
        "sha256": file_sha256,
        "pcm-sha256": facts.pcm_sha256,
        "samples": str(facts.samples),
        "sample-rate": str(facts.sample_rate),
        "file-sample-rate": str(file_rate),
        "duration-s": str(facts.duration_s),
        "engine": quote(facts.engine.name),
        "revision": quote(facts.engine.revision),
        "seed": str(facts.engine.seed),
        "take-id": facts.take_id,
        "truncated": "true" if facts.truncated else "false",
    }


def facts_of(metadata: Mapping[str, str]) -> SynthesisFacts:
    """The facts an object carries.

    Raises:
        ValueError: it is not an object of ours.
    """
    found = {name.lower(): value for name, value in metadata.items()}
    try:
        return SynthesisFacts(
            fingerprint=found["fingerprint"],
            pcm_sha256=found["pcm-sha256"],
            samples=int(found["samples"]),
            sample_rate=int(found["sample-rate"]),
            engine=EngineInfo(
                name=unquote(found["engine"]), revision=unquote(found["revision"]), seed=int(found["seed"])
            ),
            take_id=found["take-id"],
            truncated=found["truncated"] == "true",
        )
    except KeyError as error:
        raise ValueError(f"metadata {error.args[0]} is missing") from None
