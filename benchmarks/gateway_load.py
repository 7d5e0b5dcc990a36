"""The load that `gateway.py` sends: HTTP/1.1 over kept connections, made for little cost of its own.

Runs as a process of its own; prints one JSON object.
"""

import argparse
import asyncio
import json
import sys
import time

import uvloop


def request_bytes(host: str, body: bytes) -> bytes:
    """A whole POST."""
    lines = ["POST /v1/speech HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Connection(asyncio.Protocol):
    """One answer at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._waiter: asyncio.Future[int] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        at = head.index(b"content-length: ") + 16
        stop = head.find(b"\r\n", at)
        length = int(head[at : stop if stop > 0 else None])
        if len(self._data) >= end + 4 + length:
            status = int(head[9:12])
            self._data.clear()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(status)

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(0)

    async def ask(self, request: bytes) -> int:
        """The answer's status; 0 when the connection broke."""
        assert self._transport is not None
        if self.lost:
            return 0
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter


async def connected(host: str, count: int) -> list[Connection]:
    """Open connections."""
    name, _, port = host.partition(":")
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, name, int(port)))[1] for _ in range(count)]


def texts(arguments: argparse.Namespace, number: int) -> bytes:
    """Bodies: one of few texts, or a new one, or every second one new."""
    fresh = not arguments.texts or (arguments.mixed and number % 2)
    words = (
        f"{arguments.mixed or arguments.prefix} {number}" if fresh else f"{arguments.prefix} {number % arguments.texts}"
    )
    return json.dumps({"text": words, "format": "mp3"}).encode()


async def closed_loop(arguments: argparse.Namespace) -> list[tuple[int, float]]:
    """Every connection asks again as soon as it is answered."""
    connections = await connected(arguments.host, arguments.connections)
    until = time.perf_counter() + arguments.seconds
    found: list[tuple[int, float]] = []
    count = 0

    async def asking(connection: Connection) -> None:
        nonlocal count
        while time.perf_counter() < until and not connection.lost:
            count += 1
            request = request_bytes(arguments.host, texts(arguments, count))
            began = time.perf_counter()
            found.append((await connection.ask(request), time.perf_counter() - began))

    await asyncio.gather(*(asking(connection) for connection in connections))
    return found


async def open_loop(arguments: argparse.Namespace) -> list[tuple[int, float]]:
    """Requests come when they come, answered or not; the time counts from when each was due."""
    free = await connected(arguments.host, arguments.connections)
    found: list[tuple[int, float]] = []
    tasks: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(number: int, due: float) -> None:
        request = request_bytes(arguments.host, texts(arguments, number))
        while free and free[-1].lost:
            free.pop()
        connection = free.pop() if free else (await connected(arguments.host, 1))[0]
        status = await connection.ask(request)
        found.append((status, time.perf_counter() - due))
        free.append(connection)

    for number in range(int(arguments.rate * arguments.seconds)):
        due = began + number / arguments.rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.create_task(one(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return found


def main() -> None:
    """Send and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=float, default=0, help="requests a second in open loop; 0: closed loop")
    parser.add_argument("--texts", type=int, default=0, help="so many different texts; 0: each is new")
    parser.add_argument("--prefix", default="hello")
    parser.add_argument("--mixed", default="", help="with --texts: every second text is a new one that begins so")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(open_loop(arguments) if arguments.rate else closed_loop(arguments))
    took = time.perf_counter() - began
    by_status: dict[int, list[float]] = {}
    for status, seconds in found:
        by_status.setdefault(status, []).append(seconds * 1_000)
    report = {
        str(status): {"count": len(times), "per_s": len(times) / took, **_percentiles(sorted(times))}
        for status, times in by_status.items()
    }
    kinds = {"all": set(by_status), "accepted": {status for status in by_status if 200 <= status < 300}}
    for kind, statuses in kinds.items():
        times = [each for status in statuses for each in by_status[status]]
        report[kind] = {"count": len(times), "per_s": len(times) / took, **_percentiles(sorted(times))}
    json.dump({"seconds": took, "answers": report}, sys.stdout)


def _percentiles(times: list[float]) -> dict[str, float]:
    if not times:
        return {}
    return {name: round(times[int((len(times) - 1) * q)], 2) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}


if __name__ == "__main__":
    main()
