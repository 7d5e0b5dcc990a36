"""What the notifier reads from the environment: `VOXBUS_NOTIFIER__…` beside the common settings."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from infra.settings import CommonSettings, Fragment

Network = IPv4Network | IPv6Network

_HOUR_S = 3_600.0


class NotifierSettings(Fragment):
    """Signing, retries and bounds of the webhooks."""

    signing_secret: SecretStr = SecretStr("")
    """`whsec_` (HMAC) or `whsk_` (ed25519, extra `ed25519`) and base64, as Standard Webhooks has it. While secrets are
    rotated, or for both kinds: several, separated by spaces; every delivery is then signed with each."""
    endpoints_file: Path | None = None
    """A TOML file of named endpoints, which get every completion of the kinds they want beside the request's own
    callback: tables `[endpoints.NAME]` with `url`, `events`, `secrets`, `rate_per_s`, `headers`."""
    endpoint_disable_after_s: float = Field(default=5 * 24 * _HOUR_S, gt=0)
    """A named endpoint without a success for so long is disabled until `voxbus webhooks enable NAME`."""
    allowed_topic_prefixes: tuple[str, ...] = ()
    """What the topics of `kafka://TOPIC` endpoints may begin with; a JSON list such as ["team."]. None: no topics."""
    retry_delays_s: tuple[float, ...] = (
        0.0,
        5.0,
        300.0,
        1_800.0,
        2 * _HOUR_S,
        5 * _HOUR_S,
        10 * _HOUR_S,
        14 * _HOUR_S,
        20 * _HOUR_S,
        24 * _HOUR_S,
    )
    """Seconds before each attempt, the first included; as many attempts as there are numbers."""
    retry_jitter: float = Field(default=0.2, ge=0, le=1)
    """A delay is drawn between itself and itself times 1 + this, so that failures together do not return together."""
    max_retry_after_s: float = Field(default=24 * _HOUR_S, ge=0)
    """A longer `Retry-After` than this is cut to it."""
    timeout_s: float = Field(default=15.0, gt=0)
    """One attempt, from looking up the name to the answer's status."""
    max_response_bytes: int = Field(default=16_384, ge=0)
    """How much of an answer's body is read; it is thrown away."""
    allowed_private_networks: tuple[Network, ...] = ()
    """Networks that webhooks may go to although they are not public; a JSON list such as ["10.1.0.0/16"]."""
    ssl_cafile: str | None = None
    """PEM file of authorities that sign receivers' certificates; the system's own when absent."""
    max_connections: int = Field(default=512, ge=1)
    """Attempts running at once, over all endpoints."""
    max_connections_per_endpoint: int = Field(default=64, ge=1)
    """Attempts running at once to one host and port that answers; one that does not gets fewer."""
    max_waiting: int = Field(default=6_000, ge=16)
    """Deliveries in hand that wait for a connection; what one endpoint may take of it shrinks as it fills."""
    breaker_failures: int = Field(default=10, ge=1)
    """Failures in a row, of an endpoint that does not answer, after which it is left alone for a while."""
    breaker_open_s: float = Field(default=1.0, gt=0)
    """How long at first; doubles with every probe that fails."""
    breaker_max_open_s: float = Field(default=60.0, gt=0)
    """How long at most."""

    @field_validator("retry_delays_s")
    @classmethod
    def _usable_delays(cls, delays: tuple[float, ...]) -> tuple[float, ...]:
        if not delays or min(delays) < 0:
            raise ValueError("needs at least one delay, and none below 0")
        return delays


class NotifySettings(CommonSettings):
    """Everything `voxbus notify` reads."""

    notifier: NotifierSettings = NotifierSettings()
