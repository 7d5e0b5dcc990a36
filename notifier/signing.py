"""Standard Webhooks headers: who sent this, when, and which delivery it is.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime

from standardwebhooks import Webhook

from infra.errors import UserError

_VARIABLE = "VOXBUS_NOTIFIER__SIGNING_SECRET"
# The specification asks for 24 to 64 bytes of randomness.
_MIN_SECRET_BYTES = 24


def webhook_id(request_id: str) -> str:
    """The id of a request's webhook: the same on every attempt, after every crash and on every replay."""
    return f"msg_{hashlib.sha256(request_id.encode()).hexdigest()[:32]}"


class Signer:
    """Signs bodies with every secret that is valid now."""

    def __init__(self, secrets: str) -> None:
        """Read the secrets.

        Args:
            secrets: one or more `whsec_…`, separated by spaces.

        Raises:
            UserError: there is none, or one is not base64 or too short; names its place, never its content.
        """
        words = secrets.split()
        if not words:
            raise UserError(
                f"webhooks cannot be signed: {_VARIABLE} is not set; make a secret with "
                """`echo "whsec_$(head -c 32 /dev/urandom | base64)"`"""
            )
        self._keys = [_key(word, place) for place, word in enumerate(words, start=1)]

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


def _key(secret: str, place: int) -> Webhook:
    if not secret.startswith("whsec_"):
        raise UserError(f"{_VARIABLE}: secret {place} does not begin with whsec_")
    try:
        # Padding may be left out; what is too much of it is skipped.
        key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    except ValueError:
        raise UserError(f"{_VARIABLE}: secret {place} is not base64 after whsec_") from None
    if len(key) < _MIN_SECRET_BYTES:
        raise UserError(f"{_VARIABLE}: secret {place} has {len(key)} bytes, fewer than {_MIN_SECRET_BYTES}")
    return Webhook(key)
