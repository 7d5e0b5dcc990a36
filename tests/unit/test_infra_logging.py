"""One JSON object a line, with the ids that follow a request, and without what is private."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from infra import logging as voxbus_logging
from infra.settings import LogSettings


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(), stage="dedup", stream=stream)
    voxbus_logging.get_logger("a.module").info("joined", request_id="r1", note="你好\nsecond line")
    [line] = _lines(stream)
    assert (line["event"], line["stage"], line["level"], line["request_id"]) == ("joined", "dedup", "info", "r1")
    assert line["module"] == "a.module"
    assert line["at"].endswith("Z")
    assert line["note"] == "你好\nsecond line"


def test_a_logger_made_before_the_settings_follows_them(stream: io.StringIO) -> None:
    log = voxbus_logging.get_logger("imported.early")
    voxbus_logging.configure(LogSettings(), stage="dedup", stream=stream)
    log.info("joined")
    [line] = _lines(stream)
    assert (line["module"], line["stage"]) == ("imported.early", "dedup")


def test_libraries_log_the_same_way(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(), stage="dedup", stream=stream)
    logging.getLogger("some.library").warning("gone %s", "wrong")
    [line] = _lines(stream)
    assert (line["event"], line["stage"], line["level"]) == ("gone wrong", "dedup", "warning")


@pytest.mark.parametrize("private", ["text", "callback_url", "callbackurl"])
def test_private_fields_stay_out(stream: io.StringIO, private: str) -> None:
    voxbus_logging.configure(LogSettings(), stage="dedup", stream=stream)
    voxbus_logging.get_logger("m").warning("refused", **{private: "secret words"})
    assert "secret words" not in stream.getvalue()


def test_texts_are_shown_when_asked_for(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(texts=True), stage="dedup", stream=stream)
    voxbus_logging.get_logger("m").info("admitted", text="hello")
    assert _lines(stream)[0]["text"] == "hello"


def test_callbacks_stay_out_even_when_texts_are_shown(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(texts=True), stage="dedup", stream=stream)
    voxbus_logging.get_logger("m").info("admitted", callback_url="https://bot.example.com/?token=1")
    assert "token" not in stream.getvalue()


def test_an_exception_is_one_line(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(), stage="dedup", stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        voxbus_logging.get_logger("m").exception("failed")
    [line] = _lines(stream)
    assert "ValueError: broken" in line["exception"]


def test_an_exception_of_a_library_is_one_line(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(), stage="dedup", stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("some.library").exception("failed")
    [line] = _lines(stream)
    assert "ValueError: broken" in line["exception"]


def test_the_level_holds(stream: io.StringIO) -> None:
    voxbus_logging.configure(LogSettings(level="WARNING"), stage="dedup", stream=stream)
    voxbus_logging.get_logger("m").info("quiet")
    voxbus_logging.get_logger("m").warning("loud")
    assert [line["event"] for line in _lines(stream)] == ["loud"]


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"),
        (None, None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_trace_id_is_read(traceparent: str | None, expected: str | None) -> None:
    assert voxbus_logging.trace_id(traceparent) == expected
