"""Secrets of one data directory: generated at its first use, mode 0600, the same ever after."""

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.files import write_atomically


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """The one identity of the embedded object store."""

    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        """Without the secret: instances may end in logs and tracebacks."""
        return f"S3Credentials({self.access_key_id})"


def s3_credentials(path: Path) -> S3Credentials:
    """Read or generate. The file has the form SeaweedFS reads with `-s3.config`."""
    if not path.exists():
        key, secret = "VOXBUS" + secrets.token_hex(7).upper(), secrets.token_urlsafe(30)
        identity = {
            "name": "voxbus",
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_atomically(path, json.dumps({"identities": [identity]}, indent=1), mode=0o600)
    pair = json.loads(path.read_text())["identities"][0]["credentials"][0]
    return S3Credentials(pair["accessKey"], pair["secretKey"])


def signing_secret(path: Path) -> str:
    """Read or generate the webhook secret: `whsec_` and 32 random bytes in base64, as Standard Webhooks has it."""
    if not path.exists():
        write_atomically(path, "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() + "\n", mode=0o600)
    return path.read_text().strip()
