"""Which addresses a webhook may go to. Pure: names are looked up elsewhere, every answer is judged here.

The callback is chosen by whoever sends requests; without these checks it would reach what only this machine can
reach: its own loopback, the cloud's metadata service, the private network.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from yarl import URL

from notifier.settings import Network

_MAX_ADDRESS = 2_048
_Address = IPv4Address | IPv6Address

# IANA's special-purpose registries (RFC 6890 and its successors), and what wraps an IPv4 address in an IPv6 one.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("100::/64", "discard"),
        ("2001::/32", "Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)


class TargetRefusedError(Exception):
    """A webhook may not go there. The message names the kind of fault, not the address."""


class EndpointDisabledError(TargetRefusedError):
    """The endpoint it goes to is disabled, as far as is known."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address that may be asked for; a name in it is still to be resolved and judged."""

    url: URL
    host: str
    port: int
    topic: str | None = None
    """Of the bus, instead of an address."""

    @property
    def endpoint(self) -> str:
        """Host and port: what shares connections, and fails together."""
        if self.topic is not None:
            return f"kafka://{self.topic}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def topic_target(topic: str) -> Target:
    """A topic of the bus as a target."""
    return Target(URL(), "", 0, topic)


@lru_cache(maxsize=4_096)  # receivers are few, deliveries many; what is written in an address does not change
def read_target(address: str, allowed: tuple[Network, ...]) -> Target:
    """Judge a callback address as written.

    Args:
        address: as the sender of the request gave it.
        allowed: networks beside the public ones that may be reached.

    Raises:
        TargetRefusedError: it is no http(s) address, carries credentials, or names a refused IP address.
    """
    # Where one parser ends a host at a backslash or a space, another goes on.
    if len(address) > _MAX_ADDRESS or "\\" in address or not address.isprintable() or " " in address:
        raise TargetRefusedError("not a usable address")
    try:
        url = URL(address)
        host, port = url.raw_host, url.port
    except ValueError:
        raise TargetRefusedError("not a usable address") from None
    if url.scheme not in {"http", "https"}:
        raise TargetRefusedError("only http and https are served")
    if not host or not port:
        raise TargetRefusedError("it names no host, or port 0")
    # In the text itself: the parsed form forgets an empty user.
    if "@" in re.split(r"[/?#]", address.partition("//")[2], maxsplit=1)[0]:
        raise TargetRefusedError("it carries credentials")
    _judge_host(host, allowed)
    return Target(url, host, port)


def refusal(address: _Address, allowed: Collection[Network]) -> str | None:
    """Why an IP address may not be reached; None when it may."""
    embedded = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    # A mapped address is the IPv4 address to the socket, so what allows one allows the other.
    if any(candidate in network for network in allowed for candidate in (address, embedded) if candidate is not None):
        return None
    for network, why in _REFUSED:
        if address in network:
            return why
    return None if address.is_global else "not public"


def _judge_host(host: str, allowed: Collection[Network]) -> None:
    if "%" in host:
        raise TargetRefusedError("its host is not written plainly")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # 2130706433, 0x7f.1 and 0177.0.0.1 are loopback to a resolver; nobody honest writes them.
        last = host.rstrip(".").rpartition(".")[2]
        if last.isdigit() or last.startswith("0x"):
            raise TargetRefusedError("its host is a number that is not a plain IP address") from None
        return
    why = refusal(address, allowed)
    if why is not None:
        raise TargetRefusedError(f"its IP address is {why}")
