import json
from pathlib import Path

import pytest

from infra.embedded.credentials import s3_credentials
from infra.embedded.endpoints import Endpoints
from infra.errors import UserError
from producers.connection import client_settings, nested, settings_from_endpoints


@pytest.fixture
def endpoints(tmp_path: Path) -> Path:
    credentials = tmp_path / "s3.json"
    s3_credentials(credentials)
    path = tmp_path / ".voxbus" / "endpoints.json"
    path.parent.mkdir()
    Endpoints(
        kafka="127.0.0.1:1234",
        redis="redis://127.0.0.1:2/0",
        s3="http://127.0.0.1:3",
        dedup_web="http://127.0.0.1:4",
        s3_bucket="b",
        s3_credentials_file=str(credentials),
        data_dir=str(tmp_path),
        logs=str(tmp_path),
    ).write(path)
    return path


def test_an_endpoints_file_gives_settings(endpoints: Path) -> None:
    settings = settings_from_endpoints(endpoints)
    assert settings.kafka.bootstrap_servers == "127.0.0.1:1234"
    assert settings.kafka.enable_idempotence is False
    assert settings.s3.bucket == "b"
    assert settings.dedup_web == "http://127.0.0.1:4"


def test_which_one_is_asked(endpoints: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert client_settings(None).kafka.bootstrap_servers == "127.0.0.1:1234"
    monkeypatch.setenv("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "bus:9092")
    assert client_settings(None).kafka.bootstrap_servers == "bus:9092"
    assert client_settings(endpoints).kafka.bootstrap_servers == "127.0.0.1:1234"


def test_a_command_does_not_wait_long_for_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "bus:9092")
    assert client_settings(None).kafka.start_timeout_s <= 8
    monkeypatch.setenv("VOXBUS_KAFKA__START_TIMEOUT_S", "60")  # unless it is told to
    assert client_settings(None).kafka.start_timeout_s == 60


def test_a_missing_or_foreign_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="voxbus up"):
        client_settings(tmp_path / "none.json")
    foreign = tmp_path / "foreign.json"
    foreign.write_text(json.dumps({"kafka": 1}))
    with pytest.raises(UserError, match="foreign"):
        client_settings(foreign)


def test_variables_become_a_tree() -> None:
    variables = {"VOXBUS_KAFKA__NAMESPACE": "n", "VOXBUS_SYNTH__CHATTTS__ASSETS": "a", "VOXBUS_X": "1", "HOME": "/"}
    assert nested(variables) == {"kafka": {"namespace": "n"}, "synth": {"chattts": {"assets": "a"}}, "x": "1"}
