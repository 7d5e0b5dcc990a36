"""Ports on 127.0.0.1 that stay the same over restarts of one data directory."""

import json
import random
import socket
from pathlib import Path

from infra.embedded.files import write_atomically

# Below 32768, where Linux starts to give out ports to outgoing connections.
_FIRST, _LAST = 20_000, 32_700
_TRIES = 200


class NoFreePortError(Exception):
    """None was found; practically impossible."""


def is_free(port: int) -> bool:
    """Whether nobody listens on 127.0.0.1:port. Connections that linger from a former server do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class PortBook:
    """Remembers which name has which port. A remembered port that somebody else took meanwhile is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports: dict[str, int] = {}
        self._given: set[int] = set()
        try:
            known = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        if isinstance(known, dict):
            self._ports = {str(name): port for name, port in known.items() if isinstance(port, int)}

    def port(self, name: str, *, wanted: int = 0, and_above: int = 0) -> int:
        """The port of a name, free at this moment.

        Args:
            name: such as `redis` or `seaweedfs.s3`.
            wanted: take this one and no other when not 0.
            and_above: port + and_above must be free too (SeaweedFS's admin derives its second port so).

        Raises:
            NoFreePortError: the wanted one is taken, or none is free.
        """
        if wanted:
            if not is_free(wanted):
                raise NoFreePortError(f"port {wanted} for {name} is taken by another program")
            return self._keep(name, wanted, and_above)
        remembered = self._ports.get(name)
        if remembered and self._usable(remembered, and_above):
            return self._keep(name, remembered, and_above)
        for _ in range(_TRIES):
            port = random.randint(_FIRST, _LAST - and_above)  # noqa: S311 - spreads parallel stacks, hides nothing
            if port not in self._ports.values() and self._usable(port, and_above):
                return self._keep(name, port, and_above)
        raise NoFreePortError(f"no free port found for {name} between {_FIRST} and {_LAST}")

    def known(self, name: str) -> int:
        """The port a name was given before."""
        return self._ports[name]

    def _usable(self, port: int, and_above: int) -> bool:
        ports = {port, port + and_above}
        return not ports & self._given and all(is_free(each) for each in ports)

    def _keep(self, name: str, port: int, and_above: int) -> int:
        self._ports[name] = port
        self._given |= {port, port + and_above}
        write_atomically(self._path, json.dumps(self._ports, indent=1, sort_keys=True))
        return port
