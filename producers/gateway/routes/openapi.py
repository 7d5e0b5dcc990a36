"""What the OpenAPI document says beside the code: bodies, examples, answers."""

import json
from typing import Any

from producers.gateway.routes import examples
from producers.gateway.routes.refusals import RETRY_AFTER, problems

_STATUS_SCHEMA = {"$ref": "#/components/schemas/RequestStatus"}
_AGAIN = "Seconds until it is worth asking again; absent when the request has ended."


def _json(description: str, example: Any, schema: dict[str, Any], **headers: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"description": description, **_told_in(headers), "content": content}


def _told_in(headers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"headers": {name.replace("_", "-"): header for name, header in headers.items()}} if headers else {}


def _text(description: str, example: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "description": description, "example": example}


def _body(schema: str, example: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}}
    return {"required": True, "content": content}


def _header(name: str, description: str, schema: dict[str, Any], example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": schema,
        "example": example,
    }


def _object_of(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": sorted(properties), "properties": properties}


_LIST = {"type": "array"}
_TEXT_HEADER = {"type": "string", "minLength": 1, "maxLength": 255}

_STATUS_URL = _text("Where its state is.", f"/v1/requests/{examples.ID}")
_NO_STORE = _text("Always so.", "no-store")
# Codes of a status that has others elsewhere.
_UNKNOWN, _TAKEN = (404, "unknown_request"), (409, "request_conflict")
_NO_STATE = (503, "state_unavailable", "too_many_connections")
_KEPT_OUT = (503, "too_many_connections")
_BAD_ID = (422, "invalid_request")

SPEECH: dict[str, Any] = {
    "status_code": 202,
    "responses": {
        200: _json(
            "The audio was stored already, or came within `Prefer: wait=N`.",
            examples.COMPLETION,
            {"$ref": "#/components/schemas/RequestCompleted"},
            Preference_Applied=_text("`respond-sync` when it was stored already, otherwise the wait.", "wait=10"),
        ),
        202: _json(
            "Queued.",
            {
                "request_id": examples.ID,
                "status_url": f"/v1/requests/{examples.ID}",
                "fingerprint": examples.FINGERPRINT,
                "estimated_start_s": 0.4,
            },
            {"$ref": "#/components/schemas/Accepted"},
            Location=_STATUS_URL,
        ),
        **problems(400, 401, 403, 408, _TAKEN, 413, 422, 429, 500, (503, "bus_unavailable", "too_many_connections")),
    },
    "openapi_extra": {
        "requestBody": _body("SpeechBody", examples.SPEECH),
        "parameters": [
            _header(
                "Idempotency-Key",
                "The same key and body make the same request.",
                _TEXT_HEADER,
                "order-4711-greeting",
            ),
            _header(
                "Prefer",
                "`wait=N`: answer with the completion if it comes within N seconds.",
                {"type": "string"},
                "wait=10",
            ),
        ],
    },
}
POLL: dict[str, Any] = {
    "responses": {
        200: _json("Where it is.", examples.STATUS, _STATUS_SCHEMA, Retry_After={**RETRY_AFTER, "description": _AGAIN}),
        **problems(401, _UNKNOWN, _BAD_ID, 500, _NO_STATE),
    }
}
CANCEL: dict[str, Any] = {
    "status_code": 202,
    "responses": {
        200: _json("It had ended before.", examples.CANCELLED, _STATUS_SCHEMA, Location=_STATUS_URL),
        202: _json("On its way; the state tells when it came.", examples.STATUS, _STATUS_SCHEMA, Location=_STATUS_URL),
        **problems(401, 403, _UNKNOWN, _BAD_ID, (429, "rate_limited"), 500, (503, "bus_unavailable", *_KEPT_OUT[1:])),
    },
}
AUDIO: dict[str, Any] = {
    "status_code": 302,
    "responses": {
        302: {
            "description": "The object.",
            **_told_in({"Location": _text("Of the object.", examples.URL), "Cache_Control": _NO_STORE}),
        },
        **problems(401, _UNKNOWN, (409, "not_ready", "bad_audio"), _BAD_ID, (429, "rate_limited"), 500, _NO_STATE),
    },
}
_EVENT_ID = {"type": "string", "pattern": "^[0-9]{3}-[0-9]{2}$"}
_EVENT: dict[str, Any] = {
    "type": "object",
    "description": "Of each event.",
    "required": ["id", "event", "data"],
    "properties": {
        "id": _EVENT_ID,
        "event": {"const": "status"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _STATUS_SCHEMA},
    },
}
EVENTS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Events `status`; the last one is terminal.",
            **_told_in({"Cache_Control": _NO_STORE}),
            "content": {
                "text/event-stream": {
                    "schema": _EVENT,
                    "example": {"id": "042-02", "event": "status", "data": json.dumps(examples.STATUS)},
                }
            },
        },
        204: {"description": "The end was seen already."},
        **problems(401, _UNKNOWN, _BAD_ID, (429, "rate_limited"), 500, (*_NO_STATE, "too_many_listeners")),
    },
    "openapi_extra": {"parameters": [_header("Last-Event-ID", "The last event that was seen.", _EVENT_ID, "010-02")]},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": "(bytes of the file)"}
OPENAI: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Audio, while it is being made.",
            **_told_in(
                {
                    "X_Request_Id": _text("Of the request, to ask for its state.", examples.ID),
                    "X_Voxbus_Fingerprint": _text("Of what is heard.", examples.FINGERPRINT),
                }
            ),
            "content": dict.fromkeys(("audio/mpeg", "audio/ogg", "audio/flac", "audio/wav", "audio/pcm"), _BINARY),
        },
        **problems(
            *(400, 401, 403, 408, (409, "request_conflict", "cancelled", "expired"), 413),
            (422, "invalid_request", "unsupported_voice", "text_not_speakable"),
            *(429, 500, 502, (503, "bus_unavailable", "too_many_listeners", "too_many_connections"), 504),
        ),
    },
    "openapi_extra": {
        "requestBody": _body(
            "OpenAISpeech",
            {"model": "voxbus", "input": "Hello, how can I help?", "voice": "female1", "response_format": "mp3"},
        )
    },
}
ACCEPTED: dict[str, Any] = {
    "type": "object",
    "required": ["request_id", "status_url", "fingerprint", "estimated_start_s"],
    "properties": {
        "request_id": {"type": "string"},
        "status_url": {"type": "string"},
        "fingerprint": {"type": "string"},
        "estimated_start_s": {
            "type": "number",
            "description": "Seconds until it is likely begun with, from queued audio and measured speed.",
        },
    },
}
_OBJECT = {"type": "object"}
VOICES: dict[str, Any] = {
    "responses": {
        200: _json(
            "What there is.",
            {
                "engine": {"name": "espeak", "revision": "1"},
                "voices": [{"name": "female1", "description": "A woman, calm"}],
                "dialects": [{"name": "mandarin", "language": "zh", "spoken": True}],
                "formats": ["wav", "flac", "mp3", "opus"],
            },
            _object_of(engine=_OBJECT, voices=_LIST, dialects=_LIST, formats=_LIST),
        ),
        **problems(401, 500, _KEPT_OUT),
    }
}
PIPELINE: dict[str, Any] = {
    "responses": {
        200: _json(
            "As last seen; what does not answer is empty, or not `up`.",
            {
                "dedup": {"in_flight": 1, "hits": 40, "joins": 2, "misses": 17},
                "queue": {"audio_s": 4.2, "speed": 31.5, "estimated_start_s": 0.0, "estimated_bulk_start_s": 0.0},
                "stages": {"synth": {"up": True, "figures": {"voxbus_synth_lanes_busy": {"": 1.0}}}},
                "gateway": {"bus": True, "listeners": 1, "requests": 3, "answers": {"hit": 40.0, "queued": 19.0}},
            },
            _object_of(dedup=_OBJECT, queue=_OBJECT, stages=_OBJECT, gateway=_OBJECT),
        ),
        **problems(401, 500, _KEPT_OUT),
    }
}
_OPEN: dict[str, Any] = {"openapi_extra": {"security": []}}  # asked by machines that have no key
HEALTHZ: dict[str, Any] = {
    "responses": {200: _json("Alive.", {"status": "alive"}, _object_of(status={"type": "string"})), **problems(500)},
    **_OPEN,
}
READYZ: dict[str, Any] = {
    "responses": {
        200: _json(
            "Ready.", {"ready": True, "waiting_for": {}}, _object_of(ready={"type": "boolean"}, waiting_for=_OBJECT)
        ),
        **problems(500, (503, "not_ready")),
    },
    **_OPEN,
}
METRICS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Prometheus's text format.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "voxbus_gateway_listeners 1.0\n"}},
        },
        **problems(500),
    },
    **_OPEN,
}
