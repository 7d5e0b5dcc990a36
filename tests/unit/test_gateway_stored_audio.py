"""Stored files on their way to a listener: in ranges, at the announced rate, safe when the listener leaves."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import ClientSession

from producers.gateway.encoding import encoded, new_encoder
from producers.gateway.problems import ProblemError
from producers.gateway.ranged_file import BLOCK_BYTES
from producers.gateway.stored_audio import StoredAudio, stored_audio
from schemas.codes import AudioFormat
from tests.gateway_files import file_of, noise, sine, store_of_files
from tests.waiting import eventually


@pytest.fixture
async def audio():
    async with ClientSession() as http:
        with stored_audio(http, timeout_s=2, max_whole_bytes=2**20) as one:
            yield one


async def pcm_of(audio: StoredAudio, url: str, *args, **options) -> bytes:
    recording = await audio.recording(url, *args, **options)
    return b"".join([block async for block in recording.blocks()])


@pytest.mark.parametrize("from_sample", [0, 1, 24_000 * 20 + 7])
async def test_a_file_is_read_in_ranges_and_nothing_is_lost(audio, from_sample):
    pcm = noise(30)
    async with store_of_files(a=file_of(pcm, AudioFormat.FLAC)) as store:
        assert await pcm_of(audio, f"{store.url}/a", from_sample) == pcm[from_sample * 2 :]
        assert all(store.asked), "never the whole file"


async def test_the_first_second_needs_no_more_than_the_first_range(audio):
    async with store_of_files(a=file_of(noise(60), AudioFormat.FLAC)) as store:
        recording = await audio.recording(f"{store.url}/a")
        blocks = recording.blocks()
        assert len(await anext(blocks)) == 48_000
        assert store.served_bytes == BLOCK_BYTES
        await blocks.aclose()


async def test_a_store_without_ranges_is_bounded_for_all_streams_together(audio):
    pcm = noise(15)  # about 720 kB: there is room for one
    async with store_of_files(a=file_of(pcm, AudioFormat.WAV)) as store:
        store.ranges = False
        first = await audio.recording(f"{store.url}/a")
        with pytest.raises(ProblemError) as refused:
            await audio.recording(f"{store.url}/a")
        assert refused.value.status == 503
        assert b"".join([block async for block in first.blocks()]) == pcm
        assert await pcm_of(audio, f"{store.url}/a") == pcm, "the room came back"


async def test_a_store_that_breaks_off_is_no_end_of_the_audio(audio):
    async with store_of_files(a=file_of(noise(30), AudioFormat.FLAC)) as store:
        store.broken_from = BLOCK_BYTES
        with pytest.raises(ProblemError) as refused:
            await pcm_of(audio, f"{store.url}/a")
        assert refused.value.status == 502


@pytest.mark.parametrize("audio_format", [AudioFormat.OPUS, AudioFormat.MP3, AudioFormat.FLAC])
async def test_the_rate_that_was_announced_is_the_rate_that_is_heard(audio, audio_format):
    """Opus knows no 22,050 Hz: its files have 24,000."""
    async with store_of_files(a=file_of(sine(3, 22_050), audio_format, 22_050)) as store:
        rest = await pcm_of(audio, f"{store.url}/a", 22_050, sample_rate=22_050)
        assert abs(len(rest) // 2 - 2 * 22_050) < 2_500, "an MP3 has a frame of silence at either end"


async def test_headerless_audio_has_always_the_same_rate():
    async def blocks():
        for start in range(0, len(pcm), 20_000):
            yield pcm[start : start + 20_000]

    pcm = sine(3, 22_050)
    made = b"".join([piece async for piece in encoded(blocks(), "pcm", 22_050)])
    assert abs(len(made) // 2 - 3 * 24_000) <= 1
    assert new_encoder("pcm", 24_000).encode(pcm) == pcm


async def test_a_listener_that_leaves_while_storage_is_slow_leaves_nothing_open(audio):
    async with store_of_files(a=file_of(noise(30), AudioFormat.FLAC)) as store:
        store.held = asyncio.Event()
        recording = await audio.recording(f"{store.url}/a")

        async def listen():
            async for _ in recording.blocks():
                pass

        listening = asyncio.create_task(listen())
        await eventually(lambda: len(store.asked) == 2)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert not recording._source.closed, "the thread still reads"
        store.held.set()
        await eventually(lambda: recording._source.closed)


_LEAVERS = """
import asyncio, io
from concurrent.futures import ThreadPoolExecutor
import soundfile
from producers.gateway.stored_audio import Recording
from schemas.codes import AudioFormat
from tests.gateway_files import file_of, noise

async def main():
    data, threads = file_of(noise(20), AudioFormat.FLAC), ThreadPoolExecutor(4)
    for number in range(300):
        file = io.BytesIO(data)
        recording = Recording(soundfile.SoundFile(file), file, threads, sample_rate=24_000)
        async def listen():
            async for _ in recording.blocks():
                await asyncio.sleep(0)
        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.0005 * (number % 20))
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

asyncio.run(main())
"""


def test_many_that_leave_in_the_middle_do_not_take_the_process_with_them():
    """In a process of its own: what went wrong here was a crash, not an exception."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-X", "faulthandler", "-c", _LEAVERS]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
