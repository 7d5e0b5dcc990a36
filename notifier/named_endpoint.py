"""The endpoints file: receivers that get every completion of the kinds they want, whoever sent the request."""

import re
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, field_validator

from infra.errors import UserError
from notifier.settings import Network
from notifier.targets import TargetRefusedError, read_target
from schemas.topics import TOPICS

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

OWN_CALLBACK = "callback"
"""Marks the delivery to the request's own callback; no endpoint may have this name."""

_KAFKA = "kafka://"
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
# What voxbus and HTTP itself set; a file that could change them could forge deliveries.
_OWN_HEADERS = re.compile(
    r"webhook-.*|host|content-.*|connection|transfer-encoding|te|upgrade|trailer|expect|user-agent"
)


class NamedEndpoint(BaseModel):
    """One table `[endpoints.NAME]` of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """http(s), or `kafka://TOPIC`."""
    events: tuple[Literal["*", "speech.completed", "speech.failed", "speech.cancelled", "speech.expired"], ...] = ("*",)
    """Kinds of completions it gets."""
    secrets: tuple[SecretStr, ...] = ()
    """`whsec_…` or `whsk_…`, several while they are rotated; the notifier's own when absent."""
    rate_per_s: float | None = Field(default=None, gt=0)
    """Attempts a second at most, by each notifier."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Sent along with every attempt; their values are taken for secrets."""
    allow_private_networks: tuple[Network, ...] = ()
    """Networks such as "10.1.0.0/16" that this endpoint may be in although they are not public; nobody else may."""

    @property
    def topic(self) -> str | None:
        """The topic of a `kafka://` address."""
        return self.url.removeprefix(_KAFKA) if self.url.startswith(_KAFKA) else None

    def wants(self, event_type: str) -> bool:
        """Whether it gets completions of this kind."""
        return "*" in self.events or event_type in self.events

    @field_validator("headers")
    @classmethod
    def _usable_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in headers.items():
            value = secret.get_secret_value()
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or _OWN_HEADERS.fullmatch(name.lower()):
                raise ValueError("a header's name is not usable, or is set by voxbus itself")
            if not value.isprintable() or not value.isascii():
                raise ValueError("a header's value is not printable ASCII")
        return headers


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    endpoints: dict[Name, NamedEndpoint] = Field(default_factory=dict)


def read_endpoints(path: Path, topic_prefixes: tuple[str, ...] = ()) -> dict[str, NamedEndpoint]:
    """Read the file.

    Args:
        path: a TOML file with a table `[endpoints.NAME]` for each.
        topic_prefixes: what topics of `kafka://` addresses may begin with.

    Raises:
        UserError: it cannot be read, or is not valid; names the place, never a value.
    """
    try:
        endpoints = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).endpoints
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the endpoints file {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the endpoints file {path} is not TOML: {error}") from None
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [f"  {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults]
        raise UserError(f"the endpoints file {path} is not valid:\n" + "\n".join(lines)) from None
    for name, endpoint in endpoints.items():
        fault = _fault(name, endpoint, topic_prefixes)
        if fault:
            raise UserError(f"the endpoints file {path} is not valid:\n  endpoints.{name}: {fault}")
    return endpoints


def _fault(name: str, endpoint: NamedEndpoint, topic_prefixes: tuple[str, ...]) -> str | None:
    if name == OWN_CALLBACK:
        return "the name is taken by the requests' own callbacks"
    topic = endpoint.topic
    if topic is None:
        return _web_fault(endpoint.url)
    if endpoint.headers or endpoint.secrets or endpoint.allow_private_networks:
        return "headers, secrets and networks are for http(s) only"
    if not _TOPIC.fullmatch(topic):
        return "url does not name a topic"
    if topic in TOPICS or not topic.startswith(topic_prefixes):
        return "its topic is not allowed; see VOXBUS_NOTIFIER__ALLOWED_TOPIC_PREFIXES"
    return None


def _web_fault(url: str) -> str | None:
    if not url.startswith(("http://", "https://")):
        return "url is neither http(s) nor kafka://TOPIC"
    try:
        # Where it may lead is judged on every attempt; here only how it is written.
        read_target(url, _EVERYWHERE)
    except TargetRefusedError as error:
        return f"url: {error}"
    return None
