"""The web views: a request, its webhooks, a synthesis, the figures. Whichever worker is asked, the owner answers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from infra.errors import UserError
from synth_consumer.dedup.deliveries import delivery_view
from synth_consumer.dedup.rows import RequestRow, SynthesisRow, TableName, moment
from synth_consumer.dedup.settings import DedupSettings
from synth_consumer.dedup.tables import Tables, partition_of

_FORWARDED = "x-voxbus-forwarded"
_EVERY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - refused as an address to call
_PEER_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Owners:
    """Which worker holds which partition, as the group's last assignment has it."""

    own_url: str
    distribution: Callable[[], Mapping[str, Mapping[str, list[int]]]]
    """Worker's address → changelog topic → partitions."""
    recovered: Callable[[], bool]
    """Whether the rows of what is held here are all there."""

    def of(self, topic: str, partition: int) -> str | None:
        """Address of the owner; None while partitions are on their way."""
        for url, held in self.distribution().items():
            if partition in held.get(topic, ()):
                return url
        return None

    @property
    def peers(self) -> list[str]:
        """Addresses of all other workers."""
        return [url for url in self.distribution() if url != self.own_url]


class Views:
    """Handlers of the four routes."""

    def __init__(
        self, tables: Tables, partitions: int, owners: Owners, counts: Callable[[], dict[str, int]], peer: ClientSession
    ) -> None:
        self._tables = tables
        self._partitions = partitions
        self._owners = owners
        self._counts = counts
        self._peer = peer

    def routes(self) -> list[web.RouteDef]:
        """Routes of an aiohttp application."""
        return [
            web.get("/requests/{request_id}/", self.request),
            web.get("/syntheses/{fingerprint}/", self.synthesis),
            web.get("/deliveries/{request_id}/", self.delivery),
            web.get("/stats/", self.stats),
        ]

    async def request(self, http: web.Request) -> web.StreamResponse:
        """One request: state, percent, how it ended."""
        request_id = http.match_info["request_id"]

        def find() -> dict[str, Any] | None:
            row = self._tables.request(request_id)
            return _request_view(request_id, row) if row else None

        return await self._answer(http, "requests", request_id, find)

    async def synthesis(self, http: web.Request) -> web.StreamResponse:
        """One synthesis: state, files, how many wait."""
        fingerprint = http.match_info["fingerprint"]

        def find() -> dict[str, Any] | None:
            row = self._tables.synthesis(fingerprint)
            return _synthesis_view(row, self._tables.waiting(fingerprint)) if row else None

        return await self._answer(http, "syntheses", fingerprint, find)

    async def delivery(self, http: web.Request) -> web.StreamResponse:
        """The webhooks of one request: every remembered attempt for each receiver."""
        request_id = http.match_info["request_id"]

        def find() -> dict[str, Any] | None:
            row = self._tables.delivery(request_id)
            return delivery_view(request_id, row) if row else None

        return await self._answer(http, "deliveries", request_id, find)

    async def stats(self, http: web.Request) -> web.StreamResponse:
        """Figures of all workers together, and of how many workers they are."""
        figures = self._figures()
        if _FORWARDED in http.headers:
            return web.json_response(figures)
        answers = await asyncio.gather(*(self._ask(url, "/stats/") for url in self._owners.peers))
        heard = [answer[1] for answer in answers if answer is not None and answer[0] == 200]
        for other in heard:
            figures = _added(figures, other)
        return web.json_response({**figures, "workers": 1 + len(self._owners.peers), "heard": 1 + len(heard)})

    def _figures(self) -> dict[str, Any]:
        return {
            "tables": self._tables.sizes(),
            "waiters": self._tables.waiters_total,
            "in_flight": self._tables.in_flight,
            **self._counts(),
        }

    async def _answer(
        self, http: web.Request, table: TableName, key: str, find: Callable[[], dict[str, Any] | None]
    ) -> web.StreamResponse:
        partition = partition_of(key.encode(), self._partitions)
        owner = self._owners.of(self._tables.changelog_topic(table), partition)
        here = owner == self._owners.own_url
        # Who forwarded this may know an older assignment; and a row that is not read back yet is not unknown.
        if owner is None or (not here and _FORWARDED in http.headers) or (here and not self._owners.recovered()):
            return _later("partitions are being assigned or recovered")
        if here:
            found = find()
            return web.json_response(found) if found else web.json_response({"error": "not known"}, status=404)
        answer = await self._ask(owner, http.path_qs)
        if answer is None:
            return _later("the worker that holds this does not answer")
        if answer[0] == 503:
            return _later("the worker that holds this is not ready")
        return web.json_response(answer[1], status=answer[0])

    async def _ask(self, url: str, path: str) -> tuple[int, dict[str, Any]] | None:
        try:
            async with self._peer.get(url.rstrip("/") + path, headers={_FORWARDED: "1"}) as response:
                return response.status, await response.json()
        except (ClientError, TimeoutError, ValueError):
            return None


def listen(settings: DedupSettings) -> socket.socket:
    """Take the port before the app starts: its address is what other workers are told.

    Raises:
        UserError: the port is taken.
    """
    try:
        return socket.create_server((settings.web_host, settings.web_port))
    except OSError as error:
        raise UserError(
            f"cannot listen on {settings.web_host}:{settings.web_port} ({error.strerror}); set VOXBUS_DEDUP__WEB_PORT"
        ) from None


def url_of(settings: DedupSettings, listener: socket.socket) -> str:
    """Where other workers reach this one.

    Raises:
        UserError: it listens on every address, which is none to call, and has none of its own that others reach.
    """
    if settings.web_url is not None:
        return settings.web_url
    host = _own_address(settings.web_host) if settings.web_host in _EVERY_ADDRESS else settings.web_host
    return f"http://{host}:{listener.getsockname()[1]}"


def _own_address(web_host: str) -> str:
    # In a container or pod its name stands for the address it has in its network.
    with suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
        if not ip_address(address).is_loopback:
            return address
    raise UserError(
        f"VOXBUS_DEDUP__WEB_HOST={web_host} is no address other workers can call, and this host's name has none: "
        "set VOXBUS_DEDUP__WEB_URL to where they reach this worker's views"
    )


@asynccontextmanager
async def web_server(listener: socket.socket, make_views: Callable[[ClientSession], Views]) -> AsyncIterator[None]:
    """Serve the views while the block runs."""
    async with ClientSession(timeout=ClientTimeout(total=_PEER_TIMEOUT_S)) as peer:
        app = web.Application()
        app.add_routes(make_views(peer).routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, listener, shutdown_timeout=1.0).start()
            yield
        finally:
            await runner.cleanup()


def _later(error: str) -> web.Response:
    return web.json_response({"error": error}, status=503, headers={"Retry-After": "1"})


def _request_view(request_id: str, row: RequestRow) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "state": row.state,
        "percent": row.percent,
        "accepted_at": moment(row.accepted_at).isoformat(),
        "at": moment(row.at).isoformat(),
        "fingerprint": row.fingerprint,
        "cached": row.cached,
        "audio": row.audio.model_dump(mode="json") if row.audio else None,
        "error": row.error.model_dump(mode="json") if row.error else None,
    }


def _synthesis_view(row: SynthesisRow, waiters: int) -> dict[str, Any]:
    stored = row.stored
    return {
        "fingerprint": row.fingerprint,
        "state": row.state,
        "stage": row.stage if stored is None else None,
        "percent": row.percent if stored is None else 100,
        "job_id": row.job_id,
        "drive": row.drive,
        "waiters": waiters,
        "due_at": moment(row.due_at).isoformat(),
        "renditions": {name: file.model_dump(mode="json") for name, file in stored.renditions.items()}
        if stored
        else {},
        "ordered": sorted(row.orders),
        "duration_s": stored.duration_s if stored else None,
        "engine": stored.engine.model_dump(mode="json") if stored else None,
    }


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for name, value in one.items():
        theirs = other.get(name, {} if isinstance(value, dict) else 0)
        total[name] = _added(value, theirs) if isinstance(value, dict) else value + theirs
    return total
