"""A small receiver of voxbus webhooks: verifies the signature, takes each delivery once, prints what came.

    VOXBUS_NOTIFIER__SIGNING_SECRET=whsec_… python examples/receiver.py --port 8088

then send requests with `"callback_url": "http://127.0.0.1:8088/"`. The notifier goes to loopback only when
VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS names it; `voxbus up` does. Needs voxbus[notifier]: aiohttp, standardwebhooks.
"""

import argparse
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

# At least once means: the same webhook-id may come again, a crash between our answer and the sender's note suffices.
# A real receiver keeps the ids it has seen in its database, for as long as the sender may try: its default schedule
# takes 76 hours, up to 91 with jitter. This one forgets them when it ends, and the oldest beyond so many.
_REMEMBERED = 100_000


def build_app(secret: str, on_completion: Callable[[dict[str, Any]], None]) -> web.Application:
    """An application that calls `on_completion` once for every verified webhook posted to any path.

    Args:
        secret: the sender's `whsec_…`.
        on_completion: gets the completion, as in docs: `{"type": "speech.completed", "timestamp": …, "data": {…}}`.
    """
    webhook = Webhook(secret)
    seen: OrderedDict[str, None] = OrderedDict()

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()  # verify exactly the bytes that came, before parsing them
        try:
            completion = webhook.verify(body, dict(request.headers))
        except WebhookVerificationError as error:
            return web.Response(status=401, text=str(error))
        webhook_id = request.headers["webhook-id"]
        if webhook_id not in seen:
            on_completion(completion)
            seen[webhook_id] = None
            if len(seen) > _REMEMBERED:
                seen.popitem(last=False)
        return web.Response(status=204)

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", receive)])
    return app


def hmac_secret(secrets: str) -> str:
    """The first `whsec_…` of the sender's secrets, which are separated by spaces; `whsk_…` are not for HMAC.

    Raises:
        SystemExit: there is none.
    """
    for secret in secrets.split():
        if secret.startswith("whsec_"):
            return secret
    sys.exit("set VOXBUS_NOTIFIER__SIGNING_SECRET to the sender's whsec_… secret")


def _print(completion: dict[str, Any]) -> None:
    data = completion["data"]
    what = data["audio"]["url"] if data.get("audio") else data.get("error")
    print(f"{completion['type']}  {data['request_id']}  {what}", flush=True)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Receive voxbus webhooks.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8088)
    arguments = parser.parse_args()
    secret = hmac_secret(os.environ.get("VOXBUS_NOTIFIER__SIGNING_SECRET", ""))
    web.run_app(build_app(secret, _print), host=arguments.host, port=arguments.port, access_log=None)


if __name__ == "__main__":
    main()
