"""Settings: one immutable tree per process, from `VOXBUS_` environment variables nested by `__`.

Built once in a stage's `__main__`, never at import. Each stage adds its own fragment (`uploader.settings`, …) by
subclassing `CommonSettings`; fragments that two or more stages read live here.
"""

import os
import ssl
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from infra.errors import UserError
from infra.variables import unreadable, variable_name


class Fragment(BaseModel):
    """One group of settings. Unknown names are errors, so that a typo is found at start."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class KafkaSettings(Fragment):
    """The bus. The defaults fit an Apache Kafka cluster; `voxbus up` sets those that its own broker wants."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """host:port, comma separated."""
    namespace: str = ""
    """Put before every topic and group name; lets several installations share one cluster."""
    enable_idempotence: bool = True
    """Idempotent producer. The embedded broker does not have it."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How connections are secured."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How SASL proves who we are."""
    sasl_username: str | None = None
    """For SASL."""
    sasl_password: SecretStr | None = None
    """For SASL."""
    ssl_cafile: str | None = None
    """PEM file of the authority that signed the brokers' certificates; the system's own when absent."""
    partitions: int = Field(default=8, ge=1, le=1024)
    """Partitions of every topic voxbus creates; the upper bound of slots that can share the jobs."""
    replication_factor: int = Field(default=1, ge=1, le=7)
    """Copies of every topic voxbus creates; 3 on a cluster."""
    fetch_max_wait_ms: int = Field(default=500, ge=1)
    """How long a fetch waits for data. Kafka answers as soon as there is some; the embedded broker waits it out."""
    session_timeout_ms: int = Field(default=10_000, ge=1_000)
    """A member silent for so long is put out of its group."""
    heartbeat_interval_ms: int = Field(default=3_000, ge=200)
    """How often a member says that it lives; a third of the session or less."""
    rebalance_timeout_ms: int = Field(default=30_000, ge=1_000)
    """How long the group waits for a member to hand back its partitions; bounds the drain on revoke."""
    linger_ms: int = Field(default=2, ge=0)
    """How long a producer gathers messages before it sends."""
    request_timeout_ms: int = Field(default=20_000, ge=1_000)
    """How long one answer of the broker may take."""
    start_timeout_s: float = Field(default=30.0, gt=0)
    """How long a stage waits for the bus before it gives up with a message."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, servers: str) -> str:
        for server in servers.split(","):
            try:
                parts = urlsplit(f"//{server.strip()}")
                usable = bool(parts.hostname) and parts.port != 0 and not parts.path
            except ValueError:
                usable = False
            if not usable:
                raise ValueError(f"{server.strip()!r} is no host:port; such as kafka-1:9092,kafka-2:9092")
        return servers

    @field_validator("ssl_cafile")
    @classmethod
    def _readable_authority(cls, cafile: str | None) -> str | None:
        if cafile is not None:
            try:
                ssl.create_default_context(cafile=cafile)
            except OSError as error:  # absent, not to be read, or no certificate: ssl.SSLError is one too
                reason = error.strerror or type(error).__name__
                raise ValueError(f"{cafile} cannot be used: {reason}; name a PEM file of certificates") from None
        return cafile

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"{self.security_protocol} wants __SASL_USERNAME and __SASL_PASSWORD too")
        return self


class RedisSettings(Fragment):
    """Cache and counters. Every use survives an absent Redis: slower, never wrong."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """redis:// or rediss://, with the password in it where there is one."""
    namespace: str = "voxbus:"
    """Put before every key."""
    timeout_s: float = Field(default=0.5, gt=0)
    """Bound of one command; past it the answer is taken as a miss."""
    cache_ttl_s: int = Field(default=86_400, ge=1)
    """How long a rendition is answered from the cache (24 h in the source article)."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: SecretStr) -> SecretStr:
        _require_scheme(url.get_secret_value(), "redis", "rediss", "unix", example="redis://cache:6379/0")
        return url


class S3Settings(Fragment):
    """Object storage."""

    endpoint_url: str | None = None
    """Absent: AWS itself."""
    bucket: str = "voxbus"
    """Where the audio goes."""
    prefix: str = ""
    """Put before every object key."""
    region: str = "us-east-1"
    """Signed into every request."""
    access_key_id: str | None = None
    """Absent: the credential chain of the AWS SDK."""
    secret_access_key: SecretStr | None = None
    """Of `access_key_id`."""
    public_base_url: str | None = None
    """Base of the URLs in completions, such as a CDN's. Absent: presigned URLs of the store."""
    presign_ttl_s: int = Field(default=604_800, ge=60, le=604_800)
    """How long a presigned URL works; a week is the most that S3 allows."""
    create_bucket: bool = False
    """Create the bucket at start when it is missing; the embedded stack does."""

    @field_validator("endpoint_url", "public_base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None:
            _require_scheme(url, "http", "https", example="http://store:8333")
        return url


class HealthSettings(Fragment):
    """The small HTTP server of each stage: /healthz, /readyz, /metrics."""

    host: str = "127.0.0.1"
    """Where it listens; 0.0.0.0 in a container."""
    port: int = Field(default=0, ge=0, le=65_535)
    """0 picks a free port, which is logged."""


class LogSettings(Fragment):
    """One JSON object a line on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lines below it are left out."""
    texts: bool = False
    """Put the requests' texts into the log. Off: they are personal data."""


class EngineSettings(Fragment):
    """Which engine speaks. The name and revision are part of every fingerprint, so all stages must agree on them."""

    engine: Literal["chattts", "espeak", "tone"] = "espeak"
    """`tone` is a test signal."""
    revision: str = "1"
    """Raise it when weights or voices change: stored audio of the old revision is then no longer used."""
    voices_file: str | None = None
    """A TOML file in the form of the built-in catalogue, instead of it."""


class CommonSettings(BaseSettings):
    """What every process reads."""

    model_config = SettingsConfigDict(
        env_prefix="VOXBUS_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    s3: S3Settings = S3Settings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    drain_timeout_s: float = Field(default=20.0, gt=0)
    """After SIGTERM: how long work in hand may take to finish."""


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class SettingsError(UserError):
    """The environment does not make valid settings; the message lists each variable and what is wrong with it."""


def load(model: type[SettingsT]) -> SettingsT:
    """Read the environment.

    Raises:
        SettingsError: with one line per wrong variable.
    """
    try:
        return model()
    except ValidationError as error:
        lines = [f"  {variable_name(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
    except UnreadableError:
        lines = [f"  {line}" for line in unreadable(model, os.environ)]
    raise SettingsError(
        "settings are not valid:\n" + "\n".join(lines) + "\ncorrect or unset what is named; docs/settings.md lists all"
    )


def _require_scheme(url: str, *schemes: str, example: str) -> None:
    """The address itself stays out of the message: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.netloc or parts.scheme == "unix")
        usable = usable and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"is no address of {' or '.join(f'{scheme}://' for scheme in schemes)}; such as {example}")


def masked(settings: BaseSettings) -> dict[str, Any]:
    """The settings as plain data for the log, secrets shown as `**********`."""
    return settings.model_dump(mode="json")
