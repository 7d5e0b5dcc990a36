"""What is private to a named endpoint stays so: its secrets, its headers, and the networks only it may be in."""

import asyncio
import base64
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from yarl import URL

from infra.lifecycle import StoppedWhileStartingError
from infra.settings import KafkaSettings
from notifier.app import run
from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.directory import Directory
from notifier.named_endpoint import NamedEndpoint, read_endpoints
from notifier.probe import send_test
from notifier.sender import open_sender
from notifier.settings import NotifierSettings
from notifier.signing import Signer
from notifier.targets import read_target
from schemas.deliveries import DeliveryProgress
from tests.notifier_names import Names
from tests.notifier_world import LOOPBACK, SECRET, receiving, settings_for

KEY = f"whsk_{base64.b64encode(bytes(range(32))).decode()}"
PROGRESS = DeliveryProgress(attempts=0, due_ms=0, release_ms=0, first_ms=0, partition=0, offset=0)
FILE = f"""
[endpoints.crm]
url = "https://crm.example/hooks"
secrets = ["{SECRET}", "{KEY}"]
headers = {{ X-Token = "hidden-1" }}
[endpoints.plain]
url = "https://plain.example/"
"""


def write(folder: Path) -> Path:
    path = folder / "endpoints.toml"
    path.write_text(FILE)
    return path


def test_neither_secrets_nor_headers_show(tmp_path: Path) -> None:
    endpoints = read_endpoints(write(tmp_path))
    known = Directory(endpoints)
    shown = f"{endpoints!r} {endpoints['crm']} {endpoints['crm'].model_dump_json()} {known!r} {known.signer('crm')!r}"
    for secret in ("hidden-1", SECRET, KEY):
        assert secret not in shown
    assert known.headers("crm") == {"X-Token": "hidden-1"}  # sent they are


async def test_the_log_names_the_public_key_of_an_endpoint_and_nothing_secret(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stop.set()
    with capture_logs() as lines, pytest.raises(StoppedWhileStartingError):
        await run(settings_for(KafkaSettings(), endpoints_file=write(tmp_path)), stop)
    named = {line["endpoint"]: line["public_keys"] for line in lines if "endpoint" in line}
    (key,) = Signer(KEY).public_keys
    assert key.startswith("whpk_")
    assert named == {"crm": [key]}
    for secret in ("hidden-1", SECRET, KEY):
        assert secret not in str(lines)


def test_what_we_refuse_does_not_count_toward_disabling() -> None:
    known = Directory({"crm": NamedEndpoint(url="https://crm.example/")}, disable_after_s=1)
    refused = AttemptResult(Answer.REFUSED, error="its name leads to an address that is private")
    for second in range(10):
        assert known.judge("crm", refused, datetime(2026, 11, 23, 12, 0, second, tzinfo=UTC)) is None
    assert known.names_for("speech.completed") == ["crm"]


async def test_a_callback_does_not_find_the_connection_of_an_endpoint_that_may_reach_more() -> None:
    inside = NamedEndpoint(url="http://inside.example/", allow_private_networks=LOOPBACK)
    names, directory = Names({"inside.example": ["127.0.0.1"]}), Directory({"crm": inside})
    async with (
        receiving() as receiver,
        open_sender(NotifierSettings(), Signer(SECRET), directory, resolver=names) as sender,
    ):
        address = f"http://inside.example:{URL(receiver.url).port}/hook"
        target = read_target(address, ())
        results = [
            (await sender.send(Delivery("r", b"{}", address, (), None, PROGRESS, "msg_1", endpoint), target)).answer
            for endpoint in ("crm", None, "crm")
        ]
    # The connection of the first is kept open, and the third uses it.
    assert results == [Answer.SUCCESS, Answer.REFUSED, Answer.SUCCESS]
    assert receiver.attempts.total() == 2


async def test_a_test_event_may_go_where_its_endpoint_may_be() -> None:
    """0.0.0.0 leads to this machine, and is none of the loopback addresses that a test may always go to."""
    settings = NotifierSettings(signing_secret=SecretStr(SECRET))
    async with receiving() as receiver:
        url = f"http://0.0.0.0:{URL(receiver.url).port}/hook"
        allowed = NamedEndpoint(url=url, allow_private_networks=(ip_network("0.0.0.0/32"),))
        good = await send_test(settings, SECRET, url, "crm", allowed)
        refused = await send_test(settings, SECRET, url, "crm", NamedEndpoint(url=url))
    assert good.answer is Answer.SUCCESS
    assert (refused.answer, refused.error) == (Answer.REFUSED, "the address is refused: its IP address is unspecified")
