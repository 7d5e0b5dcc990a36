"""What the gateway says of itself and of the pipeline, and the console page."""

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from producers.gateway import metrics as figures
from producers.gateway.door_state import state_of
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openapi import HEALTHZ, METRICS, PIPELINE, READYZ, VOICES

router = APIRouter()
# Nothing is loaded from anywhere else; audio is played from the store that the gateway redirects to.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; media-src *; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/v1/voices", summary="Voices, dialects, formats", response_model=None, **VOICES)
async def voices(request: Request) -> dict[str, Any]:
    """What a request can ask for, and the engine that speaks."""
    state = state_of(request)
    state.keys.require(request)
    engine = state.settings.synth.engine
    catalogue = state.catalogue
    return {
        "engine": {"name": engine, "revision": state.settings.synth.revision},
        "voices": [{"name": name, "description": voice.description} for name, voice in catalogue.voices.items()],
        "dialects": [
            {"name": name, "language": language, "spoken": catalogue.speaks(engine, name)}
            for name, language in catalogue.dialects.items()
        ],
        "formats": ["wav", "flac", "mp3", "opus"],
    }


@router.get("/v1/pipeline", summary="Live picture of the pipeline", response_model=None, **PIPELINE)
async def pipeline(request: Request) -> dict[str, Any]:
    """Queue, slots, lanes, hits, webhooks: what the console page shows."""
    state = state_of(request)
    state.keys.require(request)
    gateway = {
        "bus": state.bus.open and state.tail.listening.is_set(),
        "listeners": state.listeners,
        "requests": state.open,
        "answers": figures.answers(),
    }
    return {**await state.pipeline.picture(), "gateway": gateway}


@router.get("/healthz", summary="Alive", response_model=None, **HEALTHZ)
async def healthz() -> dict[str, str]:
    """200 while the process runs."""
    return {"status": "alive"}


@router.get("/readyz", summary="Takes work", response_model=None, **READYZ)
async def readyz(request: Request) -> Response:
    """200 when requests can be put on the bus."""
    waiting = state_of(request).readiness()
    answer: dict[str, Any] = {"ready": not waiting, "waiting_for": waiting}
    if waiting:
        raise ProblemError(503, "not_ready", next(iter(waiting.values())), retry_after_s=1, members=answer)
    return JSONResponse(answer)


@router.get("/metrics", summary="Prometheus", response_model=None, response_class=Response, **METRICS)
async def prometheus() -> Response:
    """Figures of this gateway."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/", include_in_schema=False)
async def console() -> HTMLResponse:
    """The console page."""
    page = files("producers.gateway").joinpath("console.html").read_text("utf-8")
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(page, headers=headers)
