"""A gateway for tests, without a pipeline behind it: the test plays dedup, worker and uploader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web

from infra.kafka.clients import BusProducer, bus_producer, new_consumer, start_client
from infra.settings import HealthSettings, KafkaSettings, RedisSettings
from producers.gateway.app import gateway
from producers.gateway.settings import GatewaySettings, Settings
from schemas import topics
from schemas.codec import decode
from schemas.requests import SynthesisRequested
from tests.waiting import eventually


@dataclass
class DedupViews:
    """The web views as the test has them."""

    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_flight: int = 0
    away: bool = False

    async def request(self, http: web.Request) -> web.Response:
        view = self.requests.get(http.match_info["request_id"])
        return web.json_response(view or {"error": "not known"}, status=503 if self.away else 200 if view else 404)

    async def stats(self, _http: web.Request) -> web.Response:
        return web.json_response({"in_flight": self.in_flight, "tables": {}, "hits": 0, "joins": 0, "misses": 0})


@dataclass
class World:
    """A gateway and what is around it."""

    url: str
    http: httpx.AsyncClient
    views: DedupViews
    producer: BusProducer
    kafka: KafkaSettings

    async def requested(self, count: int = 1) -> list[SynthesisRequested]:
        """What is on `tts.requests`, once so much is there."""
        consumer = new_consumer(self.kafka, topics.REQUESTS, group=None, client_id="test-requests")
        found: list[SynthesisRequested] = []
        await start_client(consumer, self.kafka)
        try:

            async def enough() -> bool:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found.extend(decode(SynthesisRequested, record.value) for record in records)
                return len(found) >= count

            await eventually(enough, what=f"{count} requests")
        finally:
            await consumer.stop()
        return found


@asynccontextmanager
async def dedup_views() -> AsyncIterator[tuple[DedupViews, str]]:
    views = DedupViews()
    app = web.Application()
    app.add_routes([web.get("/requests/{request_id}/", views.request), web.get("/stats/", views.stats)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield views, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def world(
    kafka: KafkaSettings, redis: RedisSettings, *, ready: bool = True, **gateway_settings: Any
) -> AsyncIterator[World]:
    async with dedup_views() as (views, address), bus_producer(kafka, client_id="test-pipeline") as producer:
        settings = Settings(
            kafka=kafka,
            redis=redis,
            health=HealthSettings(),
            gateway=GatewaySettings(port=0, dedup_web=address, scrape_every_s=0.1, **gateway_settings),
        )
        async with gateway(settings) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
            if ready:
                await until_ready(http)
            yield World(url, http, views, producer, kafka)


async def until_ready(http: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        return (await http.get("/readyz")).status_code == 200

    await eventually(ready, 30, "the gateway is ready")
    await asyncio.sleep(0)
