"""A view says "not known" only where it can know."""

from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from infra.errors import UserError
from synth_consumer.dedup.settings import DedupSettings
from synth_consumer.dedup.tables import Tables
from synth_consumer.dedup.web import Owners, Views, listen, url_of

_OWN = "http://here"


class NoRows:
    def changelog_topic(self, table: str) -> str:
        return table

    def request(self, request_id: str) -> None:
        return None


@pytest.mark.parametrize(
    ("owner", "recovered", "forwarded", "expected"),
    [
        (_OWN, True, False, 404),
        (_OWN, True, True, 404),
        (_OWN, False, False, 503),
        (_OWN, False, True, 503),
        ("http://elsewhere", True, True, 503),
        (None, True, False, 503),
    ],
)
async def test_only_a_recovered_owner_says_not_known(
    owner: str | None, recovered: bool, forwarded: bool, expected: int
) -> None:
    held: dict[str, dict[str, list[int]]] = {owner: {"requests": [0]}} if owner else {}
    owners = Owners(_OWN, lambda: held, lambda: recovered)
    async with ClientSession() as peer:
        app = web.Application()
        views: Any = Views(cast("Tables", NoRows()), 1, owners, dict, peer)
        app.add_routes(views.routes())
        async with TestClient(TestServer(app)) as client:
            headers = {"x-voxbus-forwarded": "1"} if forwarded else {}
            answer = await client.get("/requests/r1/", headers=headers)
            assert answer.status == expected
            assert ("Retry-After" in answer.headers) == (expected == 503)


def test_every_address_is_none_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DedupSettings(web_host="0.0.0.0", web_port=0)
    with listen(settings) as listener:
        monkeypatch.setattr("socket.gethostbyname", lambda name: "10.1.2.3")
        assert url_of(settings, listener) == f"http://10.1.2.3:{listener.getsockname()[1]}"
        monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")
        with pytest.raises(UserError, match="WEB_URL"):
            url_of(settings, listener)
        named = settings.model_copy(update={"web_url": "http://dedup-0:6066"})
        assert url_of(named, listener) == "http://dedup-0:6066"
