"""Settings come from the environment, are found wrong at start by name, and never show a secret."""

import json

import pytest

from infra.settings import CommonSettings, KafkaSettings, SettingsError, load, masked
from notifier.settings import NotifySettings
from tests.environment import variables


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("VOXBUS_")]:
        monkeypatch.delenv(name)


def test_defaults_need_no_environment() -> None:
    assert load(CommonSettings).kafka.bootstrap_servers == "127.0.0.1:9092"


def test_variables_reach_their_fragment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("VOXBUS_KAFKA__ENABLE_IDEMPOTENCE", "false")
    monkeypatch.setenv("VOXBUS_REDIS__TIMEOUT_S", "0.25")
    monkeypatch.setenv("VOXBUS_DRAIN_TIMEOUT_S", "7")
    settings = load(CommonSettings)
    assert settings.kafka.bootstrap_servers == "a:1,b:2"
    assert settings.kafka.enable_idempotence is False
    assert settings.redis.timeout_s == 0.25
    assert settings.drain_timeout_s == 7


def test_what_a_test_passes_on_is_what_a_process_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaSettings.model_validate({"namespace": "t.", "sasl_password": "p", "partitions": 3})
    for name, value in variables(kafka=kafka).items():
        monkeypatch.setenv(name, value)
    assert load(CommonSettings).kafka == kafka


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VOXBUS_KAFKA__PARTITIONS", "0"),
        ("VOXBUS_KAFKA__SECURITY_PROTOCOL", "TLS"),
        ("VOXBUS_KAFKA__BOOTSTRAP", "typo:1"),
        ("VOXBUS_S3__PRESIGN_TTL_S", "soon"),
        ("VOXBUS_LOG__LEVEL", "LOUD"),
        ("VOXBUS_S3__ENDPOINT_URL", "store:8333"),
        ("VOXBUS_S3__ENDPOINT_URL", "http://store:port"),
        ("VOXBUS_S3__PUBLIC_BASE_URL", "cdn.example.com"),
        ("VOXBUS_REDIS__URL", "cache:6379"),
        ("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "kafka:abc"),
        ("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", ""),
        ("VOXBUS_KAFKA__SSL_CAFILE", "/not/there.pem"),
        ("VOXBUS_KAFKA__SECURITY_PROTOCOL", "SASL_SSL"),
        ("VOXBUS_KAFKA", "foo"),
        ("VOXBUS_NOTIFIER__RETRY_DELAYS_S", "abc"),
        ("VOXBUS_NOTIFIER", "7"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    # Of what is wrong between several variables, the group is named, and which of it are wanted.
    group = "VOXBUS_KAFKA: SASL_SSL wants __SASL_USERNAME" if value == "SASL_SSL" else f"{variable}: "
    with pytest.raises(SettingsError, match=group) as caught:
        load(NotifySettings)
    assert "docs/settings.md" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VOXBUS_KAFKA__BOOTSTRAP_SERVERS", "kafka, [::1]:9092"),
        ("VOXBUS_REDIS__URL", "unix:///run/redis.sock"),
        ("VOXBUS_REDIS__URL", "rediss://user:pass@cache:6380/1"),
        ("VOXBUS_S3__ENDPOINT_URL", "https://store.example/base"),
        ("VOXBUS_NOTIFIER__RETRY_DELAYS_S", "[1, 2]"),
        ("VOXBUS_NOTIFIER", '{"timeout_s": 3}'),
    ],
)
def test_every_usual_form_is_taken(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    load(NotifySettings)


def test_a_wrong_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXBUS_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("VOXBUS_KAFKA__PARTITIONS", "hunter3")
    with pytest.raises(SettingsError) as caught:
        load(CommonSettings)
    assert "hunter2" not in str(caught.value)


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "VOXBUS_KAFKA__SASL_PASSWORD": "hunter2",
        "VOXBUS_S3__SECRET_ACCESS_KEY": "hunter3",
        "VOXBUS_REDIS__URL": "redis://:hunter4@cache:6379/0",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    settings = load(CommonSettings)
    shown = json.dumps(masked(settings)) + repr(settings)
    assert "hunter" not in shown
    assert "**********" in shown


def test_settings_cannot_be_changed() -> None:
    settings = load(CommonSettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.partitions = 3  # type: ignore[misc]
