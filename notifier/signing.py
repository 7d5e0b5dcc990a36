"""Standard Webhooks headers: who sent this, when, and which delivery it is.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from standardwebhooks import Webhook

from infra.errors import UserError

if TYPE_CHECKING:  # an extra of its own; needed only where such a key is set
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_VARIABLE = "VOXBUS_NOTIFIER__SIGNING_SECRET"
# The specification asks for 24 to 64 bytes of randomness.
_MIN_SECRET_BYTES = 24
_SYMMETRIC, _PRIVATE, _PUBLIC = "whsec_", "whsk_", "whpk_"
# An ed25519 private key is a seed of 32 bytes; many tools write the public key's 32 bytes behind it.
_SEED_BYTES = 32


class _Key(Protocol):
    def sign(self, msg_id: str, timestamp: datetime, data: str) -> str:
        """One signature with its version before it."""


def webhook_id(request_id: str, endpoint: str | None = None) -> str:
    """The id of a request's webhook: the same on every attempt, after every crash and on every replay.

    Args:
        request_id: whose completion it is.
        endpoint: the named endpoint it goes to; None for the request's own callback.
    """
    # No request id has a slash.
    whole = request_id if endpoint is None else f"{request_id}/{endpoint}"
    return f"msg_{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


class Signer:
    """Signs bodies with every secret that is valid now."""

    def __init__(self, secrets: str, where: str = _VARIABLE) -> None:
        """Read the secrets.

        Args:
            secrets: one or more, separated by spaces: `whsec_…` signs with HMAC-SHA256 (`v1`), `whsk_…` with ed25519
                (`v1a`), whose receivers need only the public key.
            where: what to call their place in messages.

        Raises:
            UserError: there is none, or one is not base64 or has a wrong length; names its place, never its content.
        """
        words = secrets.split()
        if not words:
            raise UserError(
                f"webhooks cannot be signed: {where} is not set; make a secret with "
                """`echo "whsec_$(head -c 32 /dev/urandom | base64)"`"""
            )
        self._keys = [_key(word, f"{where}: secret {place}") for place, word in enumerate(words, start=1)]

    @property
    def public_keys(self) -> list[str]:
        """`whpk_…` of every ed25519 key, for receivers; nothing secret."""
        return [key.public for key in self._keys if isinstance(key, _Ed25519Key)]

    def headers(self, message_id: str, body: bytes, at: datetime) -> Mapping[str, str]:
        """The three `webhook-` headers of one attempt.

        Args:
            message_id: from `webhook_id`.
            body: exactly what is sent; UTF-8.
            at: the moment of the attempt, aware; receivers refuse what is minutes old.
        """
        text = body.decode()
        signatures = " ".join(key.sign(message_id, at, text) for key in self._keys)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signatures,
        }


class _Ed25519Key:
    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private

    @property
    def public(self) -> str:
        return _PUBLIC + base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def sign(self, msg_id: str, timestamp: datetime, data: str) -> str:
        signature = self._private.sign(f"{msg_id}.{int(timestamp.timestamp())}.{data}".encode())
        return f"v1a,{base64.b64encode(signature).decode()}"


def _key(secret: str, name: str) -> _Key:
    if secret.startswith(_PRIVATE):
        return _ed25519_key(_decoded(secret, _PRIVATE, name), name)
    if not secret.startswith(_SYMMETRIC):
        raise UserError(f"{name} does not begin with {_SYMMETRIC} or {_PRIVATE}")
    key = _decoded(secret, _SYMMETRIC, name)
    if len(key) < _MIN_SECRET_BYTES:
        raise UserError(f"{name} has {len(key)} bytes, fewer than {_MIN_SECRET_BYTES}")
    return Webhook(key)


def _decoded(secret: str, prefix: str, name: str) -> bytes:
    try:
        # Padding may be left out; what is too much of it is skipped.
        return base64.b64decode(secret.removeprefix(prefix) + "==")
    except ValueError:
        raise UserError(f"{name} is not base64 after {prefix}") from None


def _ed25519_key(key: bytes, name: str) -> _Ed25519Key:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  # an extra
    except ModuleNotFoundError:
        raise UserError(f"{name} is an ed25519 key, which needs `pip install 'voxbus[ed25519]'`") from None
    if len(key) not in {_SEED_BYTES, 2 * _SEED_BYTES}:
        raise UserError(f"{name} has {len(key)} bytes; an ed25519 key has {_SEED_BYTES} or {2 * _SEED_BYTES}")
    private = Ed25519PrivateKey.from_private_bytes(key[:_SEED_BYTES])
    if key[_SEED_BYTES:] not in {b"", private.public_key().public_bytes_raw()}:
        raise UserError(f"{name} holds a public key that is not its own")
    return _Ed25519Key(private)
