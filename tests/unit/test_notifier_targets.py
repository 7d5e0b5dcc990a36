"""Where webhooks may go: a table of hostile addresses, each refused, and what stays allowed."""

import socket
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr

from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.sender import open_sender
from notifier.settings import NotifierSettings
from notifier.signing import Signer
from notifier.targets import TargetRefusedError, read_target
from schemas.deliveries import DeliveryProgress
from tests.notifier_world import LOOPBACK, SECRET, receiving

REFUSED_AS_WRITTEN = [
    # loopback, in every way it is written
    "http://127.0.0.1/",
    "http://127.8.9.1:8080/x",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    # nowhere, and everywhere
    "http://0.0.0.0/",
    "http://0/",
    "http://[::]/",
    "http://255.255.255.255/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    # the cloud's metadata, the private network, the carrier's
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00:ec2::254]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://192.0.0.170/",
    # IPv4 in the clothes of IPv6
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[::ffff:0:127.0.0.1]/",
    # not http, not only a host, not an address
    "file:///etc/passwd",
    "gopher://example.com/_GET",
    "ftp://example.com/",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "//example.com/",
    "http:///nohost",
    "http://user:password@example.com/",
    "http://user@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com /",
    "http://example.com/\r\nx-injected: 1",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://[::1",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1%2f@example.com/",
    "http://" + "a" * 3_000 + ".example/",
]

LEADS_TO = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "loopback.attacker.example": ["127.0.0.1"],
    "metadata.attacker.example": ["169.254.169.254"],
    "intranet.attacker.example": ["10.1.2.3", "192.168.0.10"],
    "six.attacker.example": ["::1"],
    "linklocal.attacker.example": ["fe80::1%2"],
    "mapped.attacker.example": ["::ffff:127.0.0.1"],
    "nat64.attacker.example": ["64:ff9b::7f00:1"],
    "sixtofour.attacker.example": ["2002:7f00:1::"],
    "cgnat.attacker.example": ["100.100.100.200"],
    "anywhere.attacker.example": ["0.0.0.0"],
}


class FakeResolver(AbstractResolver):
    """Answers from a list, one entry a question; the last stays."""

    def __init__(self, *answers: Iterable[str]) -> None:
        self._answers = [list(answer) for answer in answers]
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0) for address in answer
        ]

    async def close(self) -> None:
        pass


PROGRESS = DeliveryProgress(attempts=0, due_ms=0, release_ms=0, first_ms=0, partition=0, offset=0)
DELIVERY = Delivery("r-1", b"{}", "", (), None, PROGRESS, "msg_1")


async def attempt(
    address: str, resolver: AbstractResolver, *, times: int = 1, **settings: object
) -> list[AttemptResult]:
    given = NotifierSettings(signing_secret=SecretStr(SECRET), timeout_s=5, **settings)  # type: ignore[arg-type]
    delivery = replace(DELIVERY, callback=address)
    results = []
    async with open_sender(given, Signer(SECRET), resolver=resolver) as sender:
        for _ in range(times):
            results.append(await sender.send(delivery, read_target(address, given.allowed_private_networks)))
    return results


@pytest.mark.parametrize("address", REFUSED_AS_WRITTEN)
def test_refused_as_written(address: str) -> None:
    with pytest.raises(TargetRefusedError):
        read_target(address, ())


@pytest.mark.parametrize("host", LEADS_TO)
async def test_refused_by_what_the_name_leads_to(host: str) -> None:
    resolver = FakeResolver(LEADS_TO[host])
    (result,) = await attempt(f"http://{host}:9/", resolver)
    assert result.answer is Answer.REFUSED
    assert resolver.asked == 1


async def test_a_name_that_changes_its_mind_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: good at the first look, loopback at the second."""
    monkeypatch.setattr("notifier.resolver._KEPT_S", 0.0)

    async def once(_request: web.Request, _before: int) -> web.StreamResponse:
        return web.Response(status=204, headers={"connection": "close"})

    async with receiving(once) as receiver:
        port = receiver.url.rpartition(":")[2].partition("/")[0]
        resolver = FakeResolver(["127.0.0.2"], ["127.0.0.1"])
        allowed = (ip_network("127.0.0.2/32"),)  # stands for the public address
        # Nothing listens on 127.0.0.2: both connections are new, so both are looked up.
        first, second = await attempt(
            f"http://rebind.example:{port}/", resolver, times=2, allowed_private_networks=allowed
        )
    assert first.answer is Answer.CONNECTION
    assert second.answer is Answer.REFUSED
    assert receiver.attempts.total() == 0


async def test_only_the_judged_addresses_of_a_mixed_answer_are_tried() -> None:
    async with receiving() as receiver:
        port = receiver.url.rpartition(":")[2].partition("/")[0]
        resolver = FakeResolver(["10.0.0.1", "127.0.0.1"])
        (result,) = await attempt(f"http://mixed.example:{port}/", resolver, allowed_private_networks=LOOPBACK)
    assert result.answer is Answer.SUCCESS


async def test_a_redirect_to_loopback_is_not_followed() -> None:
    async with receiving() as inside:

        async def lure(_request: web.Request, _before: int) -> web.StreamResponse:
            return web.Response(status=302, headers={"location": inside.url})

        async with receiving(lure) as outside:
            (result,) = await attempt(outside.url, FakeResolver(), allowed_private_networks=LOOPBACK)
    assert result.answer is Answer.REDIRECT
    assert inside.attempts.total() == 0


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/hook?a=1",
        "http://example.com:8080/",
        "https://93.184.215.14/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8443/",
        "https://bücher.example/",
        "https://api.7eleven.example/",
    ],
)
def test_public_addresses_pass(address: str) -> None:
    assert read_target(address, ()).port > 0


def test_allowed_networks_pass_in_both_forms() -> None:
    for address in ("http://127.0.0.1:8088/", "http://[::1]:8088/", "http://[::ffff:127.0.0.1]:8088/"):
        assert read_target(address, LOOPBACK).port == 8088
    with pytest.raises(TargetRefusedError):
        read_target("http://10.0.0.1/", LOOPBACK)


def test_endpoints_are_named_by_host_and_port() -> None:
    assert read_target("https://Example.com/a", ()).endpoint == "example.com:443"
    assert read_target("http://[2606:2800::1]/", ()).endpoint == "[2606:2800::1]:80"
