"""Samples to files and back, with libsndfile (`soundfile`) and soxr. Everything here blocks: call it from a thread.

Seen with libsndfile 1.2.2: wav, flac and mp3 of the same samples are the same bytes every time; an Ogg stream
carries a random serial number, so opus is not. Object keys therefore name the samples, not the file
(see `uploader.keys`). All four encoders let go of the interpreter lock while they work.
"""

import hashlib
import tempfile
from bisect import bisect_left
from dataclasses import dataclass
from typing import IO

import numpy as np
import soundfile
import soxr

from schemas.codes import AudioFormat
from uploader.spool import Samples

_IN_MEMORY = 1 << 20  # bytes of a file that stay in memory
_BLOCK = 1 << 18  # samples handed over at a time

_CONTAINERS = {
    AudioFormat.WAV: ("WAV", "PCM_16"),
    AudioFormat.FLAC: ("FLAC", "PCM_16"),
    AudioFormat.MP3: ("MP3", "MPEG_LAYER_III"),
    AudioFormat.OPUS: ("OGG", "OPUS"),
}
# Hz, ascending. Absent: any.
_RATES = {
    AudioFormat.MP3: (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    AudioFormat.OPUS: (8_000, 12_000, 16_000, 24_000, 48_000),
}


class TranscodeError(Exception):
    """The audio cannot be encoded or decoded."""


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A finished file, rewound; closing it frees it."""

    format: AudioFormat
    file: IO[bytes]
    bytes: int
    sha256: str


def file_rate(audio_format: AudioFormat, sample_rate: int) -> int:
    """The sample rate of a file: the take's own, or the next higher one that the format knows (at most its highest)."""
    rates = _RATES.get(audio_format)
    if rates is None:
        return sample_rate
    return rates[min(bisect_left(rates, sample_rate), len(rates) - 1)]


def encode(samples: Samples, sample_rate: int, audio_format: AudioFormat, *, folder: str | None = None) -> EncodedFile:
    """Make a file.

    Args:
        samples: int16 mono, shape (n,).
        sample_rate: Hz.
        audio_format: which file.
        folder: for files that are too large for memory.

    Raises:
        TranscodeError: the encoder refused, or the disk is full.
    """
    container, subtype = _CONTAINERS[audio_format]
    rate = file_rate(audio_format, sample_rate)
    # Owned by the EncodedFile.
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder, prefix="voxbus-file-")  # noqa: SIM115
    try:
        with soundfile.SoundFile(file, "w", rate, 1, subtype=subtype, format=container) as sink:
            _write(sink, samples, sample_rate, rate)
        size = file.seek(0, 2)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
    except (soundfile.SoundFileError, OSError) as error:
        file.close()
        raise TranscodeError(f"{audio_format} cannot be made: {error}") from error
    except BaseException:
        file.close()
        raise
    return EncodedFile(audio_format, file, size, digest)


def decode(file: IO[bytes], *, folder: str | None = None) -> tuple[Samples, int]:
    """The samples of a file, as a view of a temporary one, and its sample rate in Hz.

    Raises:
        TranscodeError: it is not a mono audio file that libsndfile reads.
    """
    try:
        with soundfile.SoundFile(file) as source, tempfile.TemporaryFile(dir=folder, prefix="voxbus-pcm-") as pcm:
            if source.channels != 1:
                raise TranscodeError(f"the file has {source.channels} channels")
            for block in source.blocks(_BLOCK, dtype="int16"):
                pcm.write(block.astype("<i2").tobytes())
            pcm.flush()
            if pcm.tell() == 0:
                return np.zeros(0, dtype="<i2"), int(source.samplerate)
            return np.memmap(pcm, dtype="<i2", mode="r"), int(source.samplerate)
    except (soundfile.SoundFileError, OSError) as error:
        raise TranscodeError(f"the file cannot be read: {error}") from error


def pcm_sha256(samples: Samples) -> str:
    """SHA-256 over the PCM, in hex; the same as over all chunks in order."""
    return hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest()


def _write(sink: soundfile.SoundFile, samples: Samples, sample_rate: int, rate: int) -> None:
    if rate == sample_rate:
        for start in range(0, len(samples), _BLOCK):
            sink.write(samples[start : start + _BLOCK])
        return
    resampler = soxr.ResampleStream(sample_rate, rate, 1, dtype="int16")
    for start in range(0, len(samples), _BLOCK):
        last = start + _BLOCK >= len(samples)
        sink.write(resampler.resample_chunk(np.asarray(samples[start : start + _BLOCK]), last=last))
