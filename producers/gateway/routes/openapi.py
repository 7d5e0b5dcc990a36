"""What the OpenAPI document says beside the code: bodies, examples, answers."""

from typing import Any

PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:voxbus:problem:rate_limited"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Of a closed list."},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_ID = "01JDCM5W3T8Z6N9QK4R7V2X1YB"
_FINGERPRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_AUDIO_INFO = {
    "url": "https://cdn.example/voxbus/9f/86/9f86d081….mp3",
    "format": "mp3",
    "bytes": 17_280,
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "duration_s": 2.16,
    "sample_rate": 24_000,
    "truncated": False,
}
_COMPLETION = {
    "type": "speech.completed",
    "timestamp": "2026-11-23T22:00:00Z",
    "data": {
        "request_id": _ID,
        "status": "completed",
        "fingerprint": _FINGERPRINT,
        "cached": True,
        "audio": _AUDIO_INFO,
        "engine": {"name": "espeak", "revision": "1", "seed": 1_602_654_337},
        "timings_ms": {"queued": 0, "synthesis": 0, "upload": 0, "total": 0},
        "metadata": {},
    },
}
_STATUS_SCHEMA = {"$ref": "#/components/schemas/RequestStatus"}
_STATUS = {
    "request_id": _ID,
    "state": "synthesizing",
    "percent": 42,
    "at": "2026-11-23T22:00:00Z",
    "fingerprint": _FINGERPRINT,
    "cached": False,
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANING[status], "content": content} for status in statuses}


_MEANING = {
    400: "The request cannot be read.",
    401: "No known API key came along.",
    404: "No such request, or not yours.",
    409: "Not ready, ended without audio, or the id is taken.",
    413: "The body is too large.",
    422: "The request is not valid; `errors` names the field.",
    429: "Too many requests, or too much is queued; see `Retry-After`.",
    502: "Stored audio cannot be fetched.",
    503: "A server behind the gateway does not answer; see `Retry-After`.",
    504: "No audio came in time.",
}


def _json(description: str, example: Any, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


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


_TEXT_HEADER = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}

SPEECH: dict[str, Any] = {
    "status_code": 202,
    "responses": {
        200: _json(
            "The audio was stored already, or came within `Prefer: wait=N`.",
            _COMPLETION,
            {"$ref": "#/components/schemas/RequestCompleted"},
        ),
        202: {
            **_json(
                "Queued.",
                {
                    "request_id": _ID,
                    "status_url": f"/v1/requests/{_ID}",
                    "fingerprint": _FINGERPRINT,
                    "estimated_start_s": 0.4,
                },
                {"$ref": "#/components/schemas/Accepted"},
            ),
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Where its state is."}},
        },
        **_problems(400, 401, 409, 413, 422, 429, 503),
    },
    "openapi_extra": {
        "requestBody": _body("SpeechBody", {"text": "您好,请问有什么可以帮您?", "voice": "female1", "format": "mp3"}),
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
        200: _json("Where it is.", _STATUS, _STATUS_SCHEMA),
        **_problems(401, 404, 422, 503),
    }
}
CANCEL: dict[str, Any] = {
    "status_code": 202,
    "responses": {
        200: _json("It had ended before.", _STATUS, _STATUS_SCHEMA),
        202: _json("On its way; the state tells when it came.", _STATUS, _STATUS_SCHEMA),
        **_problems(401, 404, 422, 503),
    },
}
AUDIO: dict[str, Any] = {
    "status_code": 302,
    "responses": {
        302: {"description": "The object.", "headers": {"Location": {"schema": {"type": "string"}}}},
        **_problems(401, 404, 409, 422, 503),
    },
}
EVENTS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Events `status`; the last one is terminal.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'id: 042-02\nevent: status\ndata: {"state": "synthesizing", "percent": 42}\n\n',
                }
            },
        },
        **_problems(401, 404, 422, 503),
    },
    "openapi_extra": {
        "parameters": [_header("Last-Event-ID", "The last event that was seen.", {"type": "string"}, "010-02")]
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
OPENAI: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Audio, while it is being made.",
            "content": dict.fromkeys(("audio/mpeg", "audio/ogg", "audio/flac", "audio/wav", "audio/pcm"), _BINARY),
        },
        **_problems(400, 401, 413, 422, 429, 502, 503, 504),
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
PROBLEMS_401 = _problems(401)
