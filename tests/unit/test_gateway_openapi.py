"""The OpenAPI document: every answer has an example, every refusal of the code is listed; and how fields are named."""

import ast
from pathlib import Path
from types import SimpleNamespace

import httpx
import jsonschema_rs
import pytest

import producers.gateway
from producers.gateway.app import web_app
from producers.gateway.keys import KeyRing, load_keys, new_key
from producers.gateway.problems import ProblemError, pointer_of
from producers.gateway.routes.openai import _read as read_openai
from producers.gateway.settings import Settings
from producers.gateway.tickets import read_body
from schemas.codes import ErrorCode

_PROBLEM = "application/problem+json"
_OPEN = ("/healthz", "/readyz", "/metrics")


async def document_with(keys):
    state = SimpleNamespace(keys=keys, settings=Settings(), open=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web_app(state)), base_url="http://gateway") as http:
        return (await http.get("/openapi.json")).raise_for_status().json()


@pytest.fixture
async def document():
    return await document_with(KeyRing(()))


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def examples(media):
    """All values that a media type, header or parameter gives as examples."""
    if "example" in media:
        return [media["example"]]
    return [one["value"] for one in media.get("examples", {}).values()]


async def test_every_answer_with_a_body_has_an_example_that_fits_its_schema(document):
    walked = 0
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for kind, media in response.get("content", {}).items():
                assert examples(media), f"{name} {status} {kind} has no example"
                assert media["schema"], f"{name} {status} {kind} has no schema"
                for example in examples(media):
                    fits(document, media["schema"], example)
                    walked += 1
            for header in response.get("headers", {}).values():
                assert examples(header)
        for media in operation.get("requestBody", {}).get("content", {}).values():
            fits(document, media["schema"], media["example"])
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] == "path" or parameter["example"]
    assert walked > 80


def fits(document, schema, example):
    # References within the schema are to the document's components.
    jsonschema_rs.validate({**schema, "components": document["components"]}, example)


async def test_every_operation_says_how_it_refuses(document):
    for name, operation in operations(document):
        statuses = {int(status) for status in operation["responses"]}
        assert 500 in statuses, name
        if not name.endswith(_OPEN):
            assert {401, 503} <= statuses, name
        if not name.startswith("GET "):
            assert 403 in statuses, name
        for status in statuses - {200, 202, 204, 302}:
            response = operation["responses"][str(status)]
            assert list(response["content"]) == [_PROBLEM], (name, status)
            assert {one["status"] for one in examples(response["content"][_PROBLEM])} == {status}, (name, status)
            if status in (429, 503, 504):
                assert "Retry-After" in response["headers"], (name, status)
    speech = document["paths"]["/v1/speech"]["post"]["responses"]
    assert {"200", "202", "400", "401", "403", "408", "409", "413", "422", "429", "500", "503"} == set(speech)
    assert ("Location" in speech["202"]["headers"], "Preference-Applied" in speech["200"]["headers"]) == (True, True)
    assert "X-Request-Id" in document["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]["headers"]


def refusals_of_the_code():
    """(status, code) of every `ProblemError(…)` in the gateway; None for what is not a constant."""
    for path in Path(producers.gateway.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ProblemError":
                yield tuple(part.value if isinstance(part, ast.Constant) else None for part in node.args[:2])


async def test_every_refusal_of_the_code_is_listed(document):
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert {str(code) for code in ErrorCode} <= set(codes)
    answers = [response for _, operation in operations(document) for response in operation["responses"].values()]
    listed = {
        (example["status"], example["code"])
        for response in (*answers, *document["components"]["responses"].values())
        for example in examples(response.get("content", {}).get(_PROBLEM, {}))
    }
    raised = set(refusals_of_the_code())
    assert len(raised) > 20
    assert {code for _, code in raised if code} <= set(codes)
    assert {one for one in raised if None not in one} - listed == set()


async def test_health_is_asked_without_a_key(tmp_path):
    _, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    document = await document_with(load_keys(tmp_path / "keys"))
    assert document["security"] == [{"key": []}]
    for name, operation in operations(document):
        assert operation.get("security", "the document's") == ([] if name.endswith(_OPEN) else "the document's"), name


async def test_the_websocket_is_described(document):
    stream = document["x-websockets"]["/v1/stream"]
    assert set(stream["server"]) == {"started", "audio", "completed", "failed"}
    for kind in ("completed", "failed"):
        assert stream["server"][kind]["example"]["event"] == kind
    fits(document, stream["client"]["speak"]["schema"], stream["client"]["speak"]["example"])
    fits(document, stream["server"]["failed"]["schema"], stream["server"]["failed"]["example"])
    assert "409" in stream["closeCodes"]["1008"]


@pytest.mark.parametrize(
    ("read", "body", "pointer"),
    [
        (read_openai, b'{"input": "a", "voice": 5}', "#/voice"),
        (read_openai, b'{"input": "a", "voice": {"id": 5}}', "#/voice"),
        (read_openai, b"{}", "#/input"),
        (read_body, b'{"text": "a", "style": {"oral": 99}}', "#/style/oral"),
        (read_body, '{"text": "a", "a/b~ 您": 1}'.encode(), "#/a~1b~0%20%E6%82%A8"),
        (read_body, b"[1]", "#"),
        (read_body, b"{", "#"),
    ],
)
def test_the_field_at_fault_is_named_as_it_was_sent(read, body, pointer):
    with pytest.raises(ProblemError) as refused:
        read(body)
    assert refused.value.body()["errors"][0]["pointer"] == pointer


def test_what_is_missing_within_a_union_is_named_without_the_kinds_tried():
    assert pointer_of(("voice", "OpenAIVoice", "id"), {"voice": {}}, missing=True) == "/voice/id"
    assert pointer_of(("voice", "OpenAIVoice", "id"), {"voice": {}}, missing=False) == "/voice"
