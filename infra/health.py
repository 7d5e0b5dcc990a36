"""The small HTTP server of a stage: `/healthz` (alive), `/readyz` (takes work), `/metrics` (Prometheus)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from infra.errors import UserError
from infra.settings import HealthSettings


class Readiness:
    """What must hold before a stage takes work. Each condition starts unmet, with the reason to show."""

    def __init__(self, *conditions: str) -> None:
        self._unmet = dict.fromkeys(conditions, "starting")

    def met(self, condition: str) -> None:
        """The condition holds now."""
        self._unmet.pop(condition, None)

    def unmet(self, condition: str, reason: str) -> None:
        """The condition does not hold (any more)."""
        self._unmet[condition] = reason

    @property
    def ready(self) -> bool:
        """Whether every condition holds."""
        return not self._unmet

    @property
    def reasons(self) -> dict[str, str]:
        """Unmet conditions and why."""
        return dict(self._unmet)


@asynccontextmanager
async def health_server(settings: HealthSettings, readiness: Readiness) -> AsyncIterator[int]:
    """Serve while the block runs.

    Yields:
        The port it listens on.

    Raises:
        UserError: the port is taken.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        status = 200 if readiness.ready else 503
        return web.json_response({"ready": readiness.ready, "waiting_for": readiness.reasons}, status=status)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    # Scrapers keep connections open; they are not waited for at the end.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise UserError(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); set VOXBUS_HEALTH__PORT"
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
