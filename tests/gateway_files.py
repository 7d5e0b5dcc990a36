"""Stored files for tests of the gateway: a store that gives ranges out, or does not, or stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiohttp import web

from schemas.codes import AudioFormat
from uploader.transcoding import encode


@dataclass
class Store:
    """Files by name, and what was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    asked: list[str] = field(default_factory=list)
    served_bytes: int = 0
    broken_from: int | None = None
    """From which byte on ranges are answered with an error."""
    held: asyncio.Event | None = None
    """Ranges behind the first wait for it."""

    async def get(self, http: web.Request) -> web.StreamResponse:
        data = self.files[http.match_info["name"]]
        wanted = http.headers.get("Range", "")
        self.asked.append(wanted)
        if not wanted or not self.ranges:
            self.served_bytes += len(data)
            return web.Response(body=data)
        start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        if self.held is not None and start:
            await self.held.wait()
        if self.broken_from is not None and start >= self.broken_from:
            return web.Response(status=500)
        piece = data[start : end + 1]
        self.served_bytes += len(piece)
        headers = {"Content-Range": f"bytes {start}-{start + len(piece) - 1}/{len(data)}"}
        return web.Response(status=206, body=piece, headers=headers)


@asynccontextmanager
async def store_of_files(**files: bytes) -> AsyncIterator[Store]:
    """A store that serves while the block runs."""
    store = Store(files=files)
    app = web.Application()
    app.add_routes([web.get("/{name}", store.get)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield store
    finally:
        if store.held is not None:
            store.held.set()
        await runner.cleanup()


def file_of(pcm: bytes, audio_format: AudioFormat, sample_rate: int = 24_000) -> bytes:
    """What the uploader would store."""
    with encode(np.frombuffer(pcm, dtype="<i2"), sample_rate, audio_format).file as file:
        return file.read()


def noise(seconds: float, sample_rate: int = 24_000) -> bytes:
    """Audio that no codec makes small."""
    return np.random.default_rng(1).integers(-3000, 3000, int(sample_rate * seconds), dtype=np.int16).tobytes()


def sine(seconds: float, sample_rate: int = 24_000, hertz: float = 440) -> bytes:
    """A tone."""
    at = np.arange(int(seconds * sample_rate)) / sample_rate
    return bytes((np.sin(2 * np.pi * hertz * at) * 12_000).astype("<i2").tobytes())
