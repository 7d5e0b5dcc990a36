"""What the commands say when there is nothing to talk to, and what their help shows."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.cli import main, voxbus
from tests.environment import environment

_COMMANDS = [
    ("say", "hello"),
    ("publish", "requests.jsonl"),
    ("status", "some-id"),
    ("topics",),
    ("topics", "--check"),
    ("audit",),
    ("dlq", "list"),
    ("dlq", "show", "0:0"),
    ("dlq", "replay", "--all"),
]


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _run_main(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """As the installed program: exit status and standard error."""
    monkeypatch.setattr("sys.argv", ["voxbus", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("arguments", _COMMANDS, ids=" ".join)
def test_an_absent_kafka_is_named_at_once(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("producers.connection._START_TIMEOUT_S", 0.3)
    (tmp_path / "requests.jsonl").write_text('{"text": "hello"}')
    code, error = _run_main(arguments, monkeypatch, capsys)
    assert code != 0
    assert "Kafka does not answer at 127.0.0.1:1; start one with `voxbus up`" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [("notify",), ("webhooks", "list")], ids=" ".join)
def test_a_notifier_without_kafka_names_it(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own, as the stage sets up the logs of the whole process."""
    variables = {
        "VOXBUS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "VOXBUS_KAFKA__START_TIMEOUT_S": "0.3",
        "VOXBUS_NOTIFIER__SIGNING_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
    program = [sys.executable, "-c", "from infra.cli import main; main()", *arguments]
    done = subprocess.run(
        program, cwd=tmp_path, env=environment(variables), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "Kafka does not answer at 127.0.0.1:1; start one with `voxbus up`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kafka_that_hangs_is_given_up(
    silent_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", silent_server)
    monkeypatch.setattr("producers.connection._START_TIMEOUT_S", 0.5)
    started = time.monotonic()
    code, error = _run_main(("say", "hello"), monkeypatch, capsys)
    assert code == 1
    assert f"Kafka does not answer at {silent_server}" in error
    assert time.monotonic() - started < 5


def test_a_named_endpoints_file_must_be_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, error = _run_main(("topics", "--endpoints", str(tmp_path / "none.json")), monkeypatch, capsys)
    assert (code, error.startswith("voxbus: no running stack found")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("say", "x" * 10_001), "voxbus: invalid_request: text: "),
        (("say", ""), "voxbus: invalid_request: text: "),
        (("say", "hello", "--voice", "no such"), "voxbus: invalid_request: voice: "),
        (("say", "hello", "-o", "nowhere/a.wav"), "voxbus: there is no folder nowhere"),
        (("status", "not an id"), "voxbus: a request id is 1 to 128"),
    ],
)
def test_what_is_wrong_is_said_without_any_server(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    code, error = _run_main(arguments, monkeypatch, capsys)
    assert code == 1
    assert error.startswith(message)


def test_replay_wants_ids_or_all() -> None:
    for arguments in ((), ("0:0", "--all")):
        result = _help("dlq", "replay", *arguments)
        assert result.exit_code == 2
        assert "name the dead letters, or say --all" in result.output


@pytest.mark.parametrize(
    "command", ["say", "publish", "status", "topics", "audit", "dlq", "dlq list", "dlq show", "dlq replay"]
)
def test_every_help_has_examples(command: str) -> None:
    result = _help(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    voxbus {command}" in result.output


def _help(*arguments: str) -> Result:
    return CliRunner().invoke(voxbus, list(arguments))
