"""The OpenAPI document as a whole: what the routes say, the schemas, and what OpenAPI has no place for."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from producers.gateway.problems import ProblemError
from producers.gateway.routes import examples
from producers.gateway.routes.openai import OpenAISpeech
from producers.gateway.routes.openapi import ACCEPTED
from producers.gateway.routes.refusals import PROBLEM, outside_of_routes
from producers.gateway.routes.stream import CLOSE
from producers.gateway.tickets import SpeechBody
from schemas.completions import RequestCompleted, RequestStatus

_ABOUT = """\
Speech is asked for on three roads: `POST /v1/speech` queues a text and tells where its state is;
`POST /v1/audio/speech` is compatible with OpenAI's and streams the file; the WebSocket `/v1/stream` streams PCM while
it is being made (see `x-websockets`, as OpenAPI has no place for it).

Every refusal is a problem (RFC 9457, `application/problem+json`) with a `code` of a closed list. Beside those of each
route, an unknown path is answered 404, a method that a path does not know 405, and a request that does not come whole,
in time or in measure 400, 408 or 431: see `components.responses`."""

_HEARING = """\
Send one JSON message. `started` comes as soon as the sample rate is known, then binary messages of signed 16-bit
little-endian mono PCM, then `completed`, or `failed` with the members of a problem, and the close. After a break send
`request_id` and `offset` (samples heard) to hear the rest. Browsers send a key as sub-protocols
`voxbus.v1, voxbus.key.<key>`, others as `Authorization: Bearer`. A refused handshake is answered with a problem."""


def document_of(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The document of an application; `keys`: whether its routes ask for one."""
    document = get_openapi(
        title="voxbus", version="1", summary="Text to speech over a bus", description=_ABOUT, routes=app.routes
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (SpeechBody, RequestStatus, RequestCompleted, OpenAISpeech):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas |= {"Problem": PROBLEM, "Accepted": ACCEPTED}
    components["responses"] = outside_of_routes()
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    if keys:
        document["security"] = [{"key": []}]
    document["x-websockets"] = {"/v1/stream": _stream()}
    return document


def _stream() -> dict[str, Any]:
    refused = ProblemError(503, "bus_unavailable", "the message bus does not answer", retry_after_s=2)
    body = {"$ref": "#/components/schemas/SpeechBody"}
    return {
        "summary": "Hear a text while it is being made",
        "description": _HEARING,
        "client": {
            "speak": {"schema": body, "example": examples.SPEECH},
            "resume": {"example": {"request_id": examples.STARTED["request_id"], "offset": 24_000}},
        },
        "server": {
            "started": {"example": examples.STARTED},
            "audio": {"contentType": "audio/L16", "description": "Binary, at the rate that `started` told."},
            "completed": {"example": {"event": "completed", "samples": 51_840, **examples.COMPLETION}},
            "failed": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": {"event": "failed", **refused.body()},
            },
        },
        "closeCodes": {
            "1000": "All is said.",
            "1011": "Failed; the message before says why.",
            **{
                str(code): "After a problem of status " + ", ".join(str(s) for s, c in CLOSE.items() if c == code) + "."
                for code in sorted(set(CLOSE.values()))
            },
        },
        "handshake": {"400": "Malformed.", "403": "A foreign page asks.", "404": "No such path."},
    }
