"""Signatures that the official verifier accepts, and secrets that are refused with a message."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from infra.errors import UserError
from notifier.signing import Signer, webhook_id
from tests.notifier_world import SECRET

OTHER = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="
# The first test vector of RFC 8032, section 7.1: seed and public key.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
PRIVATE_KEY = f"whsk_{base64.b64encode(SEED).decode()}"
BODY = '{"type":"speech.completed","data":{"text":"客服"}}'.encode()


def test_the_official_verifier_accepts() -> None:
    headers = Signer(SECRET).headers("msg_1", BODY, datetime.now(UTC))
    assert Webhook(SECRET).verify(BODY, dict(headers))["type"] == "speech.completed"


def test_while_secrets_rotate_either_verifies() -> None:
    headers = dict(Signer(f"{SECRET} {OTHER}").headers("msg_1", BODY, datetime.now(UTC)))
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, headers)


def _verify_v1a(headers: dict[str, str], body: bytes) -> None:
    """As a receiver that holds only the public key."""
    (signature,) = (word for word in headers["webhook-signature"].split() if word.startswith("v1a,"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(base64.b64decode(signature.removeprefix("v1a,")), signed)


@pytest.mark.parametrize("key", [SEED, SEED + PUBLIC])
def test_an_ed25519_key_signs_what_its_public_key_verifies(key: bytes) -> None:
    signer = Signer(f"whsk_{base64.b64encode(key).decode()}")
    headers = dict(signer.headers("msg_1", BODY, datetime.now(UTC)))
    _verify_v1a(headers, BODY)
    with pytest.raises(InvalidSignature):
        _verify_v1a(headers, BODY + b" ")
    assert signer.public_keys == [f"whpk_{base64.b64encode(PUBLIC).decode()}"]


def test_both_kinds_stand_side_by_side() -> None:
    headers = dict(Signer(f"{PRIVATE_KEY} {SECRET}").headers("msg_1", BODY, datetime.now(UTC)))
    _verify_v1a(headers, BODY)
    Webhook(SECRET).verify(BODY, headers)
    assert Signer(SECRET).public_keys == []


def test_another_body_another_id_another_secret_or_an_old_moment_fails() -> None:
    now = datetime.now(UTC)
    headers = dict(Signer(SECRET).headers("msg_1", BODY, now))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, headers | {"webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, dict(Signer(SECRET).headers("msg_1", BODY, now - timedelta(minutes=6))))


def test_the_id_belongs_to_the_request() -> None:
    assert webhook_id("r-1") == "msg_a5fa777a3dc67268caea6eea038ba141"
    assert webhook_id("r-1") != webhook_id("r-2")


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ("", "is not set"),
        ("   ", "is not set"),
        ("secret", "does not begin with whsec_"),
        (f"{SECRET} plain", "secret 2 does not begin"),
        ("whsec_", "has 0 bytes"),
        ("whsec_A", "is not base64"),
        ("whsec_c2hvcnQ=", "has 5 bytes"),
        ("whsk_c2hvcnQ=", "has 5 bytes; an ed25519 key has 32 or 64"),
        ("whsk_A", "is not base64 after whsk_"),
        (f"whsk_{base64.b64encode(SEED + SEED).decode()}", "a public key that is not its own"),
    ],
)
def test_unusable_secrets_are_named_by_place_not_content(secrets: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Signer(secrets)
    assert "c2hvcnQ" not in str(caught.value)
