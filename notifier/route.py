"""Where a delivery goes: its request's callback, or a named endpoint. Judged anew on every attempt."""

from dataclasses import dataclass

from notifier.delivery import Delivery
from notifier.directory import Directory
from notifier.settings import Network
from notifier.targets import Target, TargetRefusedError, read_target, topic_target

# Standard Webhooks asks for small bodies. A completion has about 2 kB and up to 4 KB of its request's metadata.
_MAX_BODY_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Route:
    """One delivery's way."""

    target: Target
    line: str
    """What it queues with: the host and port, or the named endpoint."""
    rate_per_s: float | None = None
    """How many may go this way in a second."""


class Router:
    """Finds ways."""

    def __init__(self, directory: Directory, allowed: tuple[Network, ...] = ()) -> None:
        """`allowed`: networks beside the public ones that may be reached."""
        self._directory = directory
        self._allowed = allowed

    def route(self, delivery: Delivery) -> Route:
        """The way of a delivery.

        Raises:
            EndpointDisabledError: there is none for now, as far as is known.
            TargetRefusedError: there is none, with the reason.
        """
        size = len(delivery.body)
        if size > _MAX_BODY_BYTES:
            raise TargetRefusedError(f"the body has {size} bytes, more than {_MAX_BODY_BYTES}")
        if delivery.endpoint is None:
            target = read_target(delivery.callback, self._allowed)
            return Route(target, target.endpoint)
        endpoint = self._directory.endpoint(delivery.endpoint)
        allowed = self._allowed + endpoint.allow_private_networks
        target = topic_target(endpoint.topic) if endpoint.topic else read_target(endpoint.url, allowed)
        # Not a host's line: a name cannot have a colon.
        return Route(target, delivery.endpoint, endpoint.rate_per_s)
