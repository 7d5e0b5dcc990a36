"""How each kind of child is seen to serve, not merely to listen."""

import asyncio
import struct
from pathlib import Path

import aiohttp

_PATIENCE_S = 2.0


async def _exchange(port: int, message: bytes, answer_bytes: int) -> bytes:
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(message)
            await writer.drain()
            return await reader.readexactly(answer_bytes)
        except asyncio.IncompleteReadError as error:
            return error.partial
        finally:
            writer.close()


async def redis_answers(port: int) -> bool:
    """PING is answered; while it reads its data back Redis says LOADING instead."""
    return await _exchange(port, b"PING\r\n", 7) == b"+PONG\r\n"


async def kafka_answers(port: int) -> bool:
    """A Metadata request is answered, which the broker cannot do before its storage answers it."""
    correlation = 7
    # Metadata v1: api key 3, version 1, correlation id, no client id, an empty list of topics.
    request = struct.pack(">hhih", 3, 1, correlation, -1) + struct.pack(">i", 0)
    answer = await _exchange(port, struct.pack(">i", len(request)) + request, 8)
    return len(answer) == 8 and struct.unpack(">ii", answer)[1] == correlation


async def http_answers(url: str) -> bool:
    """GET answers 200."""
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def seaweedfs_answers(s3_port: int, options_file: Path) -> bool:
    """The S3 door answers, and it is ours: when its port is busy `weed mini` takes another one and writes that down."""
    if f"\ns3.port={s3_port}\n" not in _text(options_file):
        return False
    return await http_answers(f"http://127.0.0.1:{s3_port}/healthz")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
