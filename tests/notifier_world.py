"""A notifier and its surroundings for tests: a receiver that does as told, completions on the bus, what came of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from aiohttp import web
from pydantic import SecretStr
from standardwebhooks import Webhook

from infra.kafka.clients import bus_producer
from infra.settings import HealthSettings, KafkaSettings
from notifier.app import run
from notifier.bus_log import read_log
from notifier.settings import NotifierSettings, NotifySettings
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, encode
from schemas.codes import ErrorCode
from schemas.completions import CompletionData, ErrorInfo, RequestCompleted
from schemas.deliveries import DeliveryAttempted

SECRET = "whsec_dm94YnVzLXRlc3RzLXNpZ25pbmctc2VjcmV0LTAwMDAwMQ=="
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

Answering = Callable[[web.Request, int], Awaitable[web.StreamResponse]]
"""Given the request and how often this webhook-id came before, answers."""


async def accept(_request: web.Request, _before: int) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    """What arrived; every request is verified by the official package before it counts."""

    url: str = ""
    answering: Answering = accept
    attempts: Counter[str] = field(default_factory=Counter)  # webhook-id: requests
    accepted: Counter[str] = field(default_factory=Counter)  # webhook-id: 2xx answers
    bodies: dict[str, bytes] = field(default_factory=dict)
    timestamps: dict[str, list[int]] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict)  # those of the last request
    forged: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        webhook_id = request.headers.get("webhook-id", "")
        try:
            Webhook(SECRET).verify(body, dict(request.headers))
        except Exception:
            self.forged += 1
            raise
        self.headers = dict(request.headers)
        before = self.attempts[webhook_id]
        self.attempts[webhook_id] += 1
        self.bodies[webhook_id] = body
        self.timestamps.setdefault(webhook_id, []).append(int(request.headers["webhook-timestamp"]))
        response = await self.answering(request, before)
        if 200 <= response.status < 300:
            self.accepted[webhook_id] += 1
        return response


@asynccontextmanager
async def receiving(answering: Answering = accept, *, port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    receiver = Receiver(answering=answering)
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", receiver.handle)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def settings_for(kafka: KafkaSettings, **notifier: Any) -> NotifySettings:
    """A notifier that may go to loopback and tries quickly."""
    values = {
        "signing_secret": SecretStr(SECRET),
        "allowed_private_networks": LOOPBACK,
        "retry_delays_s": (0.0, 0.1, 0.2, 0.4),
        "timeout_s": 1.0,
    } | notifier
    return NotifySettings(kafka=kafka, health=HealthSettings(), notifier=NotifierSettings(**values))


@asynccontextmanager
async def notifying(settings: NotifySettings) -> AsyncIterator[None]:
    """A notifier in this process while the block runs; its failure fails the test."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await task


def failed_completion(request_id: str) -> RequestCompleted:
    error = ErrorInfo(code=ErrorCode.BAD_AUDIO, message="silent", attempts=1)
    data = CompletionData(request_id=request_id, status="failed", error=error, metadata={"name": "客服"})
    return RequestCompleted(type="speech.failed", timestamp=utc_now(), data=data)


async def publish_completions(kafka: KafkaSettings, request_ids: Iterable[str], callback: str | None) -> None:
    """Put completions on the bus, as the dedup app does."""
    context = Context(extensions={"callbackurl": callback} if callback else {})
    async with bus_producer(kafka, client_id="test") as producer:
        messages = [encode(failed_completion(name), source="voxbus/dedup", context=context) for name in request_ids]
        await producer.all_acked([await producer.send(topics.COMPLETED, message) for message in messages])


async def read_all(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Every record of a topic, up to its present end."""
    return [record async for record in read_log(kafka, topic)]


async def attempts_of(kafka: KafkaSettings) -> list[DeliveryAttempted]:
    """The delivery log."""
    records = await read_all(kafka, topics.DELIVERIES)
    return [DeliveryAttempted.model_validate_json(record.value) for record in records]
