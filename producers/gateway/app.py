"""The gateway put together."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
from aiohttp import ClientSession, TCPConnector
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from infra.errors import UserError
from infra.health import Readiness, health_server
from infra.lifecycle import background
from infra.logging import get_logger
from infra.speech import Speech
from infra.voices import load_catalogue
from producers.gateway.audience import audience
from producers.gateway.backpressure import Backpressure
from producers.gateway.bus_door import bus_door
from producers.gateway.cache import Cache
from producers.gateway.connections import BoundedProtocol
from producers.gateway.door_state import GatewayState
from producers.gateway.doorway import Doorway
from producers.gateway.feeds import Tail, audio_into, fingerprints_into, jobs_into, keyed_into, outcomes_into
from producers.gateway.front import Front, ProblemCors
from producers.gateway.keys import load_keys
from producers.gateway.limits import Limits
from producers.gateway.pipeline import Pipeline
from producers.gateway.problems import ProblemError, on_http_exception, on_problem, on_unexpected, on_validation
from producers.gateway.projection import Projection
from producers.gateway.redis_line import redis_line
from producers.gateway.routes import about, openai, requests, speech, stream
from producers.gateway.routes.document import document_of
from producers.gateway.settings import Settings
from producers.gateway.stored_audio import stored_audio
from producers.gateway.take_hub import TakeHub
from producers.replies import Completions, Followers
from schemas import topics
from schemas.audio import AudioChunk, TakeFinished

_log = get_logger(__name__)
_WAITING = 10_000
_VIEW_TIMEOUT_S = 3.0
_SAMPLE_BYTES_PER_S = 48_000  # 16-bit mono at 24 kHz
_GRACE_S = 3  # for open streams, after which they are cut


@asynccontextmanager
async def gateway_state(settings: Settings) -> AsyncIterator[GatewayState]:
    """Everything behind the routes. No server needs to be there: those that are not are waited for in the background.

    Raises:
        UserError: the catalogue or the keys file cannot be read.
    """
    own = settings.gateway
    catalogue = load_catalogue(settings.synth.voices_file)
    keys = load_keys(own.api_keys_file)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(ClientSession(connector=TCPConnector(limit=own.max_connections)))
        line = await stack.enter_async_context(redis_line(settings.redis))
        bus = await stack.enter_async_context(bus_door(settings.kafka, timeout_s=own.bus_timeout_s))
        cache = Cache(line, settings.redis)
        projection = Projection(http, own.dedup_web, timeout_s=_VIEW_TIMEOUT_S)
        doorway = Doorway(
            Speech(catalogue, settings.synth.engine, settings.synth.revision),
            cache,
            bus,
            keys,
            projection,
            idempotency_ttl_s=own.idempotency_ttl_s,
            projection_ttl_s=own.projection_ttl_s,
        )
        unheard = audience(
            line, settings.redis.namespace, doorway.cancel, enabled=own.cancel_unheard, grace_s=own.unheard_grace_s
        )
        hub = TakeHub(max_bytes=own.stream_buffer_bytes, max_take_bytes=int(own.stream_buffer_s * _SAMPLE_BYTES_PER_S))
        backpressure = Backpressure(own.max_queued_audio_s)
        completions, followers = Completions(_WAITING), Followers()
        tail = _tail(settings, hub, backpressure, completions, followers)
        stored = stack.enter_context(
            stored_audio(http, timeout_s=own.object_timeout_s, max_whole_bytes=own.max_stream_object_bytes)
        )
        limits = Limits(own, settings.redis)
        stack.push_async_callback(limits.close)
        state = GatewayState(
            settings=settings,
            catalogue=catalogue,
            keys=keys,
            limits=limits,
            cache=cache,
            doorway=doorway,
            bus=bus,
            tail=tail,
            completions=completions,
            followers=followers,
            projection=projection,
            backpressure=backpressure,
            hub=hub,
            stored=stored,
            pipeline=Pipeline(http, own.stages, backpressure, every_s=own.scrape_every_s),
            audience=await stack.enter_async_context(unheard),
        )
        watching = backpressure.watch(projection, state.pipeline.lanes, own.scrape_every_s)
        await stack.enter_async_context(background(tail.run(), watching))
        yield state


def _tail(
    settings: Settings, hub: TakeHub, backpressure: Backpressure, completions: Completions, followers: Followers
) -> Tail:
    def on_chunk(chunk: AudioChunk) -> None:
        hub.chunk(chunk)
        backpressure.on_chunk(chunk)

    def on_finished(take: TakeFinished) -> None:
        hub.finished(take.job.fingerprint, take.take_id, take.chunks)
        backpressure.on_finished(take)

    def on_lost(error: Exception) -> None:
        hub.forget_unfinished()
        backpressure.on_lost()
        completions.on_lost(error)

    def on_failed(fingerprint: str) -> None:
        hub.forget(fingerprint)
        backpressure.on_settled(fingerprint)

    handlers = {
        topics.JOBS_INTERACTIVE: jobs_into(backpressure.on_job),
        topics.JOBS_BULK: jobs_into(backpressure.on_job),
        topics.CONTROL: fingerprints_into(backpressure.on_settled),
        topics.AUDIO: audio_into(on_chunk, on_finished, lambda gone: hub.abandoned(gone.fingerprint, gone.take_id)),
        topics.OUTCOMES: outcomes_into(backpressure.on_settled, on_failed),
        topics.STATUS: keyed_into(followers.on_record),
        topics.COMPLETED: keyed_into(completions.on_record),
    }
    return Tail(settings.kafka, handlers, on_lost)


def web_app(state: GatewayState) -> ASGIApp:
    """The ASGI application."""
    app = FastAPI(title="voxbus", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.gateway = state
    for module in (speech, requests, openai, stream, about):
        app.include_router(module.router)
    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_unexpected)
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(document_of(app, keys=not state.keys.open))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to complete the document
    front: ASGIApp = Front(app, state)
    origins = state.settings.gateway.cors_origins
    if origins:
        headers = ["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "traceparent"]
        methods = ["GET", "POST", "DELETE"]
        exposed = ["Location", "Retry-After", "X-Request-Id"]
        front = ProblemCors(
            front, allow_origins=origins, allow_headers=headers, allow_methods=methods, expose_headers=exposed
        )
    return front


class _Server(uvicorn.Server):
    """Signals are the stage's own matter."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[str]:
    """A gateway that serves while the block runs.

    Yields:
        Its base URL.

    Raises:
        UserError: a port is taken, or a file cannot be read.
    """
    async with AsyncExitStack() as stack:
        readiness = Readiness("bus")
        health_port = await stack.enter_async_context(health_server(settings.health, readiness))
        state = await stack.enter_async_context(gateway_state(settings))
        listener = stack.enter_context(_listen(settings))
        server = _Server(_config(settings, web_app(state)))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        await stack.enter_async_context(background(_tell_readiness(state, readiness)))
        port = listener.getsockname()[1]
        _log.info("listening", port=port, health_port=health_port)
        try:
            yield f"http://{settings.gateway.host}:{port}"
        finally:
            state.closing.set()
            server.should_exit = True
            await serving


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        UserError: a port is taken, or a file cannot be read.
    """
    async with gateway(settings):
        await stop.wait()


def _config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    own = settings.gateway
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        http=BoundedProtocol,
        limit_concurrency=own.max_connections,
        # Above the bound of a request, so that what is somewhat too large is told so.
        ws_max_size=2 * own.max_body_bytes,
        # Speech compresses badly, and zlib would do it on the event loop.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _listen(settings: Settings) -> socket.socket:
    own = settings.gateway
    try:
        return socket.create_server((own.host, own.port), backlog=1_024)
    except OSError as error:
        raise UserError(
            f"cannot listen on {own.host}:{own.port} ({error.strerror}); set VOXBUS_GATEWAY__PORT"
        ) from None


async def _tell_readiness(state: GatewayState, readiness: Readiness) -> None:
    while True:
        waiting: Mapping[str, str] = state.readiness()
        if waiting:
            readiness.unmet("bus", next(iter(waiting.values())))
        else:
            readiness.met("bus")
        await asyncio.sleep(0.2)
