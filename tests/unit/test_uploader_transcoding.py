"""Every format plays back what went in."""

import hashlib
import io
import threading

import numpy as np
import pytest

from schemas.codes import AudioFormat
from tests.uploader_world import heard, loudness, speech
from uploader.transcoding import EncodedFile, TranscodeError, decode, encode, file_rate, pcm_sha256


def content(encoded: EncodedFile) -> bytes:
    with encoded.file as file:
        return file.read()


@pytest.mark.parametrize("audio_format", list(AudioFormat))
@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_round_trip(audio_format: AudioFormat, rate: int) -> None:
    samples = speech(2.0, rate=rate)
    encoded = encode(samples, rate, audio_format)
    written = content(encoded)
    played, played_rate = heard(written)

    assert (len(written), hashlib.sha256(written).hexdigest()) == (encoded.bytes, encoded.sha256)
    assert played_rate == file_rate(audio_format, rate)
    assert len(played) / played_rate == pytest.approx(2.0, abs=0.05)
    assert loudness(played) == pytest.approx(loudness(samples), rel=0.1)
    if audio_format in {AudioFormat.WAV, AudioFormat.FLAC}:
        assert np.array_equal(played, samples)


def test_rates_a_format_does_not_know_go_up() -> None:
    assert [file_rate(AudioFormat.OPUS, rate) for rate in (8_000, 22_050, 24_000, 96_000)] == [
        8_000,
        24_000,
        24_000,
        48_000,
    ]
    assert file_rate(AudioFormat.MP3, 22_050) == 22_050
    assert file_rate(AudioFormat.WAV, 96_000) == 96_000


@pytest.mark.parametrize("audio_format", [AudioFormat.WAV, AudioFormat.FLAC, AudioFormat.MP3])
def test_equal_samples_give_equal_files(audio_format: AudioFormat) -> None:
    samples = speech(1.0)
    assert content(encode(samples, 24_000, audio_format)) == content(encode(samples.copy(), 24_000, audio_format))


def test_a_master_gives_its_samples_back() -> None:
    samples = speech(3.0)
    with encode(samples, 24_000, AudioFormat.FLAC).file as file:
        back, rate = decode(file)
    assert rate == 24_000
    assert np.array_equal(back, samples)
    assert pcm_sha256(back) == hashlib.sha256(samples.tobytes()).hexdigest()


def test_what_is_no_audio_is_refused() -> None:
    with pytest.raises(TranscodeError, match="cannot be read"):
        decode(io.BytesIO(b"no audio at all"))


def test_encoders_let_go_of_the_interpreter() -> None:
    """The event loop's thread must get its turns while another encodes."""
    samples = speech(20.0)
    turns = 0

    def work() -> None:
        encode(samples, 24_000, AudioFormat.OPUS).file.close()

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        worker.join(0.001)
        turns += 1
    assert turns > 20
