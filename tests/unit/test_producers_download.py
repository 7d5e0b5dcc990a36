import hashlib
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

    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=403, reason="Forbidden")

    app = web.Application()
    app.router.add_get("/audio", audio)
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
