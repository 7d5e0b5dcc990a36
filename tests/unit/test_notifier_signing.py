"""Signatures that the official verifier accepts, and secrets that are refused with a message."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from infra.errors import UserError
from notifier.signing import Signer, webhook_id
from tests.notifier_world import SECRET

OTHER = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="
BODY = '{"type":"speech.completed","data":{"text":"客服"}}'.encode()


def test_the_official_verifier_accepts() -> None:
    headers = Signer(SECRET).headers("msg_1", BODY, datetime.now(UTC))
    assert Webhook(SECRET).verify(BODY, dict(headers))["type"] == "speech.completed"


def test_while_secrets_rotate_either_verifies() -> None:
    headers = dict(Signer(f"{SECRET} {OTHER}").headers("msg_1", BODY, datetime.now(UTC)))
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, headers)


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
    ],
)
def test_unusable_secrets_are_named_by_place_not_content(secrets: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Signer(secrets)
    assert "c2hvcnQ" not in str(caught.value)
