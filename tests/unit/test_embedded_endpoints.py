import pytest

from infra.embedded.credentials import s3_credentials
from infra.embedded.endpoints import Endpoints, as_environment, kafka_settings, load
from infra.errors import UserError
from infra.settings import CommonSettings, SettingsError


@pytest.fixture
def endpoints(tmp_path):
    s3_credentials(tmp_path / "s3.json")
    return Endpoints(
        kafka="127.0.0.1:1", redis="redis://127.0.0.1:2/0", s3="http://127.0.0.1:3", s3_bucket="voxbus",
        s3_credentials_file=str(tmp_path / "s3.json"), data_dir=str(tmp_path), logs=str(tmp_path / "logs"),
    )  # fmt: skip


def test_what_is_written_is_read(tmp_path, endpoints):
    endpoints.write(tmp_path / "endpoints.json")
    assert load(tmp_path / "endpoints.json") == endpoints
    assert "\n" not in endpoints.line()


def test_without_a_stack_the_message_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no running stack found at .*: start one with `voxbus up`"):
        load(tmp_path / "endpoints.json")


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "endpoints.json").write_text("{}")
    with pytest.raises(UserError, match="not an endpoints file"):
        load(tmp_path / "endpoints.json")


def test_a_stage_reads_the_environment_back(endpoints, monkeypatch):
    for name, value in as_environment(endpoints).items():
        monkeypatch.setenv(name, value)
    settings = CommonSettings()
    assert settings.kafka.bootstrap_servers == endpoints.kafka
    assert not settings.kafka.enable_idempotence
    assert settings.s3.secret_access_key is not None
    assert settings.s3.create_bucket
    assert kafka_settings(as_environment(endpoints)) == settings.kafka


def test_the_bus_settings_of_the_user_are_checked(endpoints):
    with pytest.raises(SettingsError, match="VOXBUS_KAFKA__PARTITIONS"):
        kafka_settings({**as_environment(endpoints), "VOXBUS_KAFKA__PARTITIONS": "many"})


def test_cleared_credentials_are_named(tmp_path, endpoints):
    (tmp_path / "s3.json").unlink()
    with pytest.raises(UserError, match="is missing"):
        as_environment(endpoints)
