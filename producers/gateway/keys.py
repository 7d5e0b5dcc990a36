"""API keys: hashed at rest, compared in constant time, each seeing its own requests only."""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import HTTPConnection

from infra.errors import UserError
from producers.gateway.problems import ProblemError

_PREFIX = "vxb_"
_MARK = ".k"
_MAC_DIGITS = 24
_NAME_CHARS = 128 - len(_MARK) - _MAC_DIGITS  # of a name that fits into an id together with its mark
KEY_WANTED = "send a known key as `Authorization: Bearer …`"
"""What is said to those who come without."""
ANYBODY = "anybody"
"""Owner of every request while no keys are set up."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One known key: its owner's name, and the SHA-256 of the key itself."""

    name: str
    sha256: str


class KeyRing:
    """The known keys. Keys are 192 random bits, so a fast hash keeps them as safe as a slow one would."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._keys

    def owner_of(self, presented: str | None) -> str | None:
        """The owner of a presented key; None when it is unknown. Takes the same time whichever key it is."""
        digest = hashlib.sha256((presented or "").encode()).hexdigest()
        owner = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                owner = key.name
        return owner

    def sign(self, owner: str, name: str) -> str:
        """An id that says whose it is, so that no memory of owners is needed; the name itself without keys."""
        if self.open:
            return name
        key = next(key for key in self._keys if key.name == owner)
        return f"{name}{_MARK}{_mac(key, name)}"

    def id_of(self, owner: str, name: str) -> str:
        """The id on the bus of what an owner calls `name`: its own marked id, or a name it chose.

        Two owners may choose the same name, and no owner can say the name of what came by another door.
        """
        if self.open or (self.is_marked(name) and self.owns(owner, name)):
            return name
        return self.sign(owner, name if len(name) <= _NAME_CHARS else hashlib.sha256(name.encode()).hexdigest())

    def is_marked(self, request_id: str) -> bool:
        """Whether the id has the form of those made here."""
        name, _, mac = request_id.rpartition(_MARK)
        return bool(name) and len(mac) == _MAC_DIGITS

    def owns(self, owner: str, request_id: str) -> bool:
        """Whether a marked id was made for this owner, under any of its keys."""
        name, _, mac = request_id.rpartition(_MARK)
        theirs = (key for key in self._keys if key.name == owner)
        return any(hmac.compare_digest(mac.encode(), _mac(key, name).encode()) for key in theirs)

    def require(self, connection: HTTPConnection) -> str:
        """The owner who calls.

        Raises:
            ProblemError: 401, no known key came along.
        """
        if self.open:
            return ANYBODY
        owner = self.owner_of(_presented(connection))
        if owner is None:
            raise ProblemError(401, "invalid_request", KEY_WANTED)
        return owner


def new_key(name: str) -> tuple[str, str]:
    """A fresh key and the line for the keys file. The key itself is shown once and kept nowhere."""
    key = _PREFIX + secrets.token_urlsafe(24)
    line = json.dumps({"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()})
    return key, line


def load_keys(path: Path | None) -> KeyRing:
    """Read the keys file.

    Raises:
        UserError: it is missing, or a line is not of the form.
    """
    if path is None:
        return KeyRing(())
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"API keys file {path} cannot be read: {error.strerror}") from None
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            data = json.loads(line)
            keys.append(ApiKey(str(data["name"]), str(data["sha256"])))
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{path} line {number} is not {{"name": …, "sha256": …}}') from None
    if not keys:
        raise UserError(f"{path} holds no key; make one with `voxbus gateway --new-key NAME`")
    return KeyRing(tuple(keys))


def _mac(key: ApiKey, name: str) -> str:
    """The stored hash is the secret here: it never leaves the house, and is the same on every gateway."""
    return hmac.new(key.sha256.encode(), name.encode(), hashlib.sha256).hexdigest()[:_MAC_DIGITS]


def _presented(connection: HTTPConnection) -> str | None:
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    # Browsers cannot set headers on a WebSocket; query strings land in logs, a sub-protocol does not.
    for protocol in connection.headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith("voxbus.key."):
            return protocol.strip().removeprefix("voxbus.key.")
    return None
