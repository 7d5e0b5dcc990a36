"""What the demo stands on: `voxbus up` as a child process, and a receiver for its webhooks."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from receiver import build_app

from infra.embedded import launcher
from infra.errors import UserError

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 60.0


class Stack:
    """`voxbus up` over a folder; entering waits until every stage is ready and gives the endpoints file."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Path:
        # Settings of other installations must not reach into the demo.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXBUS_")}
        self._process = await asyncio.create_subprocess_exec(
            # The launcher ties its life to ours, however we end.
            *(sys.executable, launcher.__file__, str(os.getpid())),
            *(sys.executable, "-c", "from infra.cli import main; main()"),
            *("up", "--data-dir", str(self._data_dir), "--engine", "espeak"),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on, when our own clients are closed
        )
        try:
            assert self._process.stdout is not None
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = await self._process.stdout.readline()
            if not line:
                raise UserError("the embedded stack did not start; its own message stands above")
        except TimeoutError:
            await self._stop()
            raise UserError(f"the embedded stack was not ready within {_START_TIMEOUT_S:g} s") from None
        except BaseException:
            await self._stop()
            raise
        return self._data_dir / "endpoints.json"

    async def __aexit__(self, kind: object, *_: object) -> None:
        status = await self._stop()
        if status != 0 and kind is None:
            raise UserError(f"the embedded stack did not stop cleanly (exit status {status})")

    async def _stop(self) -> int:
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()


class Receiver:
    """An endpoint for webhooks on a free port of this machine; keeps what came with a good signature."""

    def __init__(self, secret: str) -> None:
        self._runner = web.AppRunner(self._app(secret), access_log=None)
        self._changed = asyncio.Event()
        self.url = ""
        self.came: dict[str, dict[str, Any]] = {}
        """By request id."""
        self.refused = 0
        """Deliveries whose signature was wrong."""
        self.on_webhook: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/webhook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def next_one(self) -> None:
        """Wait for something to come."""
        await self._changed.wait()
        self._changed.clear()

    def _app(self, secret: str) -> web.Application:
        @web.middleware
        async def count_refused(request: web.Request, handler: Any) -> web.StreamResponse:
            response: web.StreamResponse = await handler(request)
            self.refused += response.status == 401
            return response

        app = build_app(secret, self._keep)
        app.middlewares.append(count_refused)
        return app

    def _keep(self, completion: dict[str, Any]) -> None:
        self.came[completion["data"]["request_id"]] = completion
        self._changed.set()
        self.on_webhook()
