"""An object store that takes every question, and drops the connection within each object that is asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from infra.settings import S3Settings


@asynccontextmanager
async def cut_off_store() -> AsyncIterator[S3Settings]:
    """Settings that lead to it."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield S3Settings(
            endpoint_url=f"http://127.0.0.1:{port}", access_key_id="any", secret_access_key=SecretStr("any")
        )


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while (head := await reader.readuntil(b"\r\n\r\n")).startswith(b"HEAD"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert head.startswith(b"GET")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nContent-Type: audio/flac\r\n\r\n" + b"x" * 1000)
        await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    finally:
        writer.close()
