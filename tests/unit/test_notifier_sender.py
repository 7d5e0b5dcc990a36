"""What one attempt over HTTP makes of hostile, slow, overloaded and untrusted receivers."""

import asyncio
import gzip
import socket
import ssl
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import SecretStr
from yarl import URL

from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.resolver import MAX_LOOKUPS
from notifier.retry import RetryPolicy, decide
from notifier.sender import open_sender
from notifier.settings import NotifierSettings
from notifier.signing import Signer
from notifier.targets import read_target
from schemas.deliveries import DeliveryProgress
from tests.certificates import Authority
from tests.notifier_names import Names
from tests.notifier_world import LOOPBACK, SECRET, receiving
from tests.waiting import eventually

PROGRESS = DeliveryProgress(attempts=0, due_ms=0, release_ms=0, first_ms=0, partition=0, offset=0)
DELIVERY = Delivery("r-1", b"{}", "", (), None, PROGRESS, "msg_1")
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"

After = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def nothing_more(_writer: asyncio.StreamWriter) -> None:
    pass


@asynccontextmanager
async def answering(
    answer: bytes, after: After = nothing_more, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server on loopback that gives every request these bytes; yields its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            await after(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def attempt(port: int, *, host: str = "", cafile: str | None = None, timeout_s: float = 5.0) -> AttemptResult:
    given = NotifierSettings(
        signing_secret=SecretStr(SECRET),
        timeout_s=timeout_s,
        allowed_private_networks=LOOPBACK,
        ssl_cafile=cafile,
    )
    address = f"https://{host}:{port}/" if host else f"http://127.0.0.1:{port}/"
    names = Names({host: ["127.0.0.1"]})
    async with open_sender(given, Signer(SECRET), resolver=names) as sender:
        return await sender.send(DELIVERY, read_target(address, LOOPBACK))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 429 X\r\nRetry-After: Mon, 23 Nov 99999999999999999999 12:01:00 GMT\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 99999 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 X\r\nRetry-After: \xff\xfe\r\nwebhook-delivery: \xff\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x00\x01\x02\x03",
        b"",
    ],
)
async def test_whatever_a_receiver_answers_is_a_result(answer: bytes) -> None:
    async with answering(answer) as port:
        assert isinstance(await attempt(port), AttemptResult)


async def test_what_nobody_foresaw_is_a_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RecursionError

    monkeypatch.setattr("notifier.sender.retry_after_s", broken)
    async with answering(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n") as port:
        result = await attempt(port)
    assert (result.answer, result.error) == (Answer.PROTOCOL, "not to be handled (RecursionError)")


def http_date(seconds_from_now: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds_from_now), usegmt=True)


@pytest.mark.parametrize(
    ("status", "header", "least_s", "most_s"),
    [
        (429, "120", 120, 120),
        (503, 600.0, 580, 600),
        (503, -600.0, 5, 5),
        (500, "120", 5, 5),
        (404, "120", 5, 5),
    ],
)
async def test_only_429_and_503_may_ask_for_patience(
    status: int, header: str | float, least_s: float, most_s: float
) -> None:
    # A date is made here: between the collection of the tests and this one, minutes may pass.
    header = header if isinstance(header, str) else http_date(header)
    answer = f"HTTP/1.1 {status} X\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode()
    async with answering(answer) as port:
        decision = decide(await attempt(port), 1, RetryPolicy((0.0, 5.0)), 0.0)
    assert decision.delay_s is not None
    assert least_s <= decision.delay_s <= most_s


async def test_a_gzip_bomb_stays_packed() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with answering(head + bomb) as port:
        tracemalloc.start()
        try:
            result = await attempt(port)
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert result.answer is Answer.SUCCESS
    assert peak < 5_000_000


async def test_an_endless_body_is_read_to_a_small_bound() -> None:
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", pour) as port:
        result = await attempt(port)
    assert result.answer is Answer.SUCCESS
    # What both sockets and the client's reader buffer; more was never taken.
    assert sent < 20_000_000


async def test_a_body_that_drips_keeps_nobody_waiting() -> None:
    held = asyncio.Event()

    async def hold(_writer: asyncio.StreamWriter) -> None:
        await held.wait()

    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", hold) as port:
        result = await attempt(port, timeout_s=30)
        held.set()
    assert result.answer is Answer.SUCCESS
    assert result.latency_s < 15


async def test_tls_is_verified(tmp_path: Path) -> None:
    trusted, stranger = Authority(), Authority()
    cafile = str(trusted.write(tmp_path / "ca.pem"))
    async with answering(NO_CONTENT, tls=trusted.server("good.example", tmp_path)) as port:
        assert (await attempt(port, host="good.example", cafile=cafile)).answer is Answer.SUCCESS
        assert (await attempt(port, host="other.example", cafile=cafile)).answer is Answer.TLS
        # The system's own authorities do not know this one.
        assert (await attempt(port, host="good.example")).answer is Answer.TLS
    async with answering(NO_CONTENT, tls=stranger.server("good.example", tmp_path)) as port:
        assert (await attempt(port, host="good.example", cafile=cafile)).answer is Answer.TLS
    async with answering(NO_CONTENT, tls=trusted.server("good.example", tmp_path, expired=True)) as port:
        assert (await attempt(port, host="good.example", cafile=cafile)).answer is Answer.TLS


async def test_each_attempt_has_its_own_timestamp(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=2)])
    monkeypatch.setattr("notifier.sender.utc_now", lambda: next(moments))
    given = NotifierSettings(signing_secret=SecretStr(SECRET), allowed_private_networks=LOOPBACK)
    async with receiving() as receiver, open_sender(given, Signer(SECRET)) as sender:
        for _ in range(2):
            await sender.send(DELIVERY, read_target(receiver.url, LOOPBACK))
    first, second = receiver.timestamps["msg_1"]
    assert second - first == 2


async def test_an_attempt_that_hangs_ends_with_the_timeout() -> None:
    held = asyncio.Event()

    async def hold(_writer: asyncio.StreamWriter) -> None:
        await held.wait()

    async with answering(b"HTTP/1.1 200", hold) as port:
        result = await attempt(port, timeout_s=0.3)
        held.set()
    assert result.answer is Answer.TIMEOUT


def test_the_default_timeout_is_that_of_the_specification() -> None:
    assert NotifierSettings().timeout_s == 15


async def test_deliveries_to_a_silent_domain_fail_with_its_reason_while_others_go_on() -> None:
    """The system's resolver itself hangs, in its threads, for all names of one domain."""
    let_go = threading.Event()

    def hang(host: str, *rest: Any, **more: Any) -> Any:
        if host.endswith(".dead.example"):
            let_go.wait(30)
            raise OSError("not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", rest[0]))]

    settings = NotifierSettings(allowed_private_networks=LOOPBACK, timeout_s=30.0)
    async with receiving() as healthy, open_sender(settings, Signer(SECRET)) as sender:
        port = URL(healthy.url).port
        with patch("socket.getaddrinfo", hang), ThreadPoolExecutor(MAX_LOOKUPS) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            stuck = [
                asyncio.create_task(sender.send(DELIVERY, read_target(f"http://n{n}.dead.example/", LOOPBACK)))
                for n in range(200)
            ]
            # What finds no room fails at once, and does not wait for the rest.
            await eventually(lambda: sum(task.done() for task in stuck) == 192)
            for n in range(20):
                target = read_target(f"http://n{n}.alive.example:{port}/hook", LOOPBACK)
                assert (await asyncio.wait_for(sender.send(DELIVERY, target), 5)).answer is Answer.SUCCESS
            let_go.set()
            errors = Counter([(await task).error for task in stuck])
    assert errors == {"too many names of its domain are being looked up": 192, "its name is not known": 8}
