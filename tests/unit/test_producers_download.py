import asyncio
import hashlib
import io
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from producers.download import download
from producers.errors import DownloadError
from schemas.codes import AudioFormat
from schemas.completions import AudioInfo

CONTENT = os.urandom(200_000)


@pytest.fixture
async def store() -> AsyncIterator[BaseTestServer]:
    async def audio(_: web.Request) -> web.Response:
        return web.Response(body=CONTENT)

    async def short(_: web.Request) -> web.Response:
        return web.Response(body=b"abcd")

    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=403, reason="Forbidden")

    app = web.Application()
    app.router.add_get("/audio", audio)
    app.router.add_get("/short", short)
    app.router.add_get("/gone", gone)
    async with TestServer(app) as server:
        yield server


def _info(url: object, *, size: int = len(CONTENT), sha256: str | None = None) -> AudioInfo:
    digest = sha256 or hashlib.sha256(CONTENT).hexdigest()
    return AudioInfo(url=str(url), format=AudioFormat.WAV, bytes=size, sha256=digest, duration_s=1, sample_rate=24_000)


async def test_the_file_appears_whole(store: BaseTestServer, tmp_path: Path) -> None:
    seen: list[int] = []
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    assert await download(_info(store.make_url("/audio")), target, on_bytes=seen.append) == target
    assert target.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)
    assert stat.S_IMODE(target.stat().st_mode) & 0o400
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("path", "size", "sha256", "message"),
    [
        ("/audio", 10, None, "longer than the 10 bytes"),
        ("/audio", len(CONTENT) + 1, None, "not the completion's"),
        ("/audio", len(CONTENT), "0" * 64, "another checksum"),
        ("/gone", 1, None, "403 Forbidden"),
    ],
)
async def test_anything_else_leaves_nothing(
    store: BaseTestServer, tmp_path: Path, path: str, size: int, sha256: str | None, message: str
) -> None:
    with pytest.raises(DownloadError, match=message):
        await download(_info(store.make_url(path), size=size, sha256=sha256), tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_is_away_is_named_without_the_address_that_opens_it(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1: ") as caught:
        await download(_info("http://127.0.0.1:1/x?X-Amz-Signature=secret"), tmp_path / "a.wav")
    assert "secret" not in str(caught.value)


async def test_a_folder_that_is_not_there(store: BaseTestServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be written"):
        await download(_info(store.make_url("/audio")), tmp_path / "none" / "a.wav")


async def test_a_link_stays_and_what_it_points_to_is_replaced(store: BaseTestServer, tmp_path: Path) -> None:
    real, link = tmp_path / "real.wav", tmp_path / "link.wav"
    real.write_bytes(b"old")
    link.symlink_to(real)
    await download(_info(store.make_url("/audio")), link)
    assert link.is_symlink()
    assert real.read_bytes() == CONTENT


async def test_a_fifo_is_written_into_once_somebody_reads(store: BaseTestServer, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    _, content = await asyncio.gather(
        download(_info(store.make_url("/audio")), fifo), asyncio.to_thread(fifo.read_bytes)
    )
    assert content == CONTENT
    assert fifo.is_fifo()
    with pytest.raises(DownloadError, match="not the completion's"):
        await download(_info(store.make_url("/audio"), sha256="0" * 64), fifo)
    with pytest.raises(DownloadError, match="did not come"):
        await download(_info(store.make_url("/audio")), fifo, timeout_s=0.3)  # nobody reads


async def test_a_device_is_written_into(store: BaseTestServer) -> None:
    """A pseudo-terminal, so that a program that replaces devices does no harm to the machine of this test."""
    leader, follower = os.openpty()
    device = Path(os.ttyname(follower))
    try:
        await download(_info(store.make_url("/short"), size=4, sha256=hashlib.sha256(b"abcd").hexdigest()), device)
        assert os.read(leader, 4) == b"abcd"
        assert device.is_char_device()
    finally:
        os.close(leader)
        os.close(follower)


async def test_an_open_file_gets_what_was_checked(store: BaseTestServer) -> None:
    output = io.BytesIO()
    with pytest.raises(DownloadError):
        await download(_info(store.make_url("/audio"), sha256="0" * 64), output)
    assert output.getvalue() == b""
    await download(_info(store.make_url("/audio")), output)
    assert output.getvalue() == CONTENT
