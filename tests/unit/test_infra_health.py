"""`/healthz` tells that the process lives, `/readyz` whether it takes work, `/metrics` what it did."""

import socket

import aiohttp
import pytest

from infra.errors import UserError
from infra.health import Readiness, health_server
from infra.settings import HealthSettings


async def _get(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_ready_only_when_every_condition_holds() -> None:
    readiness = Readiness("bus", "engine")
    async with health_server(HealthSettings(), readiness) as port:
        assert (await _get(port, "/healthz"))[0] == 200
        assert (await _get(port, "/readyz"))[0] == 503
        readiness.met("bus")
        status, body = await _get(port, "/readyz")
        assert status == 503
        assert "engine" in body
        assert "bus" not in body
        readiness.met("engine")
        assert (await _get(port, "/readyz"))[0] == 200
        readiness.unmet("bus", "no broker answers")
        status, body = await _get(port, "/readyz")
        assert status == 503
        assert "no broker answers" in body


async def test_metrics_are_prometheus_text() -> None:
    async with health_server(HealthSettings(), Readiness()) as port:
        status, body = await _get(port, "/metrics")
    assert status == 200
    assert "# TYPE voxbus_messages_total counter" in body or "python_info" in body


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{port}.*VOXBUS_HEALTH__PORT"):
            async with health_server(HealthSettings(port=port), Readiness()):
                pass


async def test_the_port_is_free_again_afterwards() -> None:
    async with health_server(HealthSettings(), Readiness()) as port:
        pass
    async with health_server(HealthSettings(port=port), Readiness()) as again:
        assert again == port


async def test_an_error_of_the_block_is_not_taken_for_a_taken_port() -> None:
    with pytest.raises(ConnectionRefusedError):
        async with health_server(HealthSettings(), Readiness()):
            raise ConnectionRefusedError("the block's own")
