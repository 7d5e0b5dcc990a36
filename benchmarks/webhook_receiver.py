"""The receiver that `webhooks.py` starts, and kills: answers as told, and writes down every request before it answers.

A line: arrival (seconds since 1970), webhook-id, status, request id. The file survives the process.
"""

import argparse
import asyncio
import json
import os
import random
import time

from aiohttp import web
from standardwebhooks import Webhook

_HANG_S = 3_600.0


def build_app(arguments: argparse.Namespace) -> web.Application:
    """An application that fails and hangs at random, and verifies every so many requests."""
    chance = random.Random(arguments.seed)
    webhook = Webhook(os.environ["VOXBUS_NOTIFIER__SIGNING_SECRET"])
    log = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    came = 0
    began: float | None = None

    def note(webhook_id: str, status: int, body: bytes) -> None:
        request_id = json.loads(body)["data"]["request_id"]
        os.write(log, f"{time.time():.6f} {webhook_id} {status} {request_id}\n".encode())

    async def receive(request: web.Request) -> web.Response:
        nonlocal came, began
        body = await request.read()
        came += 1
        began = began or time.monotonic()
        await asyncio.sleep(max(0.0, began + arguments.stall - time.monotonic()))
        if came % arguments.verify_every == 0:
            webhook.verify(body, dict(request.headers))
        lot = chance.random()
        webhook_id = request.headers["webhook-id"]
        if lot < arguments.hang:
            note(webhook_id, 0, body)
            await asyncio.sleep(_HANG_S)
        status = 500 if lot < arguments.hang + arguments.fail else 204
        note(webhook_id, status, body)
        return web.Response(status=status)

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", receive)])
    return app


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--hang", type=float, default=0.0)
    parser.add_argument("--stall", type=float, default=0.0, help="seconds from the first request on without an answer")
    parser.add_argument("--verify-every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    web.run_app(
        build_app(arguments), host="127.0.0.1", port=arguments.port, access_log=None, print=None, shutdown_timeout=0.1
    )


if __name__ == "__main__":
    main()
