"""`/deliveries/{request_id}/`: what the notifier tells of its attempts, asked of any worker, also after a kill."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from infra.settings import KafkaSettings
from schemas import topics
from schemas.base import utc_now
from schemas.codec import encode
from schemas.deliveries import DeliveryAttempted, DeliveryState
from tests.integration.dedup_bench import Worker, bus, dedup_worker
from tests.waiting import eventually

_NAMES = [f"r-{number}" for number in range(12)]  # over all four partitions


def attempted(request_id: str, attempt: int, *, endpoint: str | None = None, ends: bool = False) -> DeliveryAttempted:
    now = utc_now()
    return DeliveryAttempted(
        request_id=request_id,
        webhook_id=f"msg_{request_id}_{endpoint}",
        attempt=attempt,
        state=DeliveryState.DELIVERED if ends else DeliveryState.RETRYING,
        at=now,
        host="127.0.0.1:8088",
        endpoint=endpoint,
        http_status=204 if ends else 503,
        latency_ms=12,
        error=None if ends else "it answered 503",
        next_attempt_at=None if ends else now + timedelta(seconds=5),
    )


def shown(event: DeliveryAttempted) -> dict[str, Any]:
    following = event.next_attempt_at
    return {
        "attempt": event.attempt,
        "at": event.at.isoformat(),
        "state": event.state,
        "http_status": event.http_status,
        "latency_ms": event.latency_ms,
        "error": event.error,
        "next_attempt_at": following.isoformat() if following else None,
    }


async def seen(worker: Worker, request_id: str) -> dict[str | None, list[dict[str, Any]]]:
    """The attempts of each endpoint, as a worker shows them; none while it does not know the request."""
    status, view = await worker.get(f"/deliveries/{request_id}/")
    if status != 200:
        return {}
    assert view["request_id"] == request_id
    return {delivery["endpoint"]: delivery["attempts"] for delivery in view["deliveries"]}


async def test_either_of_two_workers_shows_every_attempt(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as one, bus(topics_ready) as wire:
        async with dedup_worker(topics_ready, tmp_path) as two:

            async def both() -> bool:
                figures = [(await worker.get("/stats/"))[1] for worker in (one, two)]
                return all(figure.get("heard") == 2 for figure in figures) and await one.ready()

            await eventually(both, 30, "both workers know of each other", every_s=0.2)
            expected = {}
            for name in _NAMES:
                first, last = attempted(name, 1), attempted(name, 2, ends=True)
                lake = attempted(name, 1, endpoint="lake", ends=True)
                # One of them twice, as a producer that tries again leaves it.
                told = [encode(event, source="test") for event in (first, first, lake, last)]
                await wire.producer.deliver(topics.DELIVERIES, *told)
                expected[name] = {None: [shown(first), shown(last)], "lake": [shown(lake)]}

            async def all_shown(worker: Worker) -> bool:
                return {name: await seen(worker, name) for name in _NAMES} == expected

            for worker in (one, two):
                await eventually(lambda worker=worker: all_shown(worker), 30, "every attempt", every_s=0.2)  # type: ignore[misc]
                assert (await worker.get("/deliveries/nobody/"))[0] == 404
                assert (await worker.get("/stats/"))[1]["tables"]["deliveries"] == len(_NAMES)
            await two.kill()
        await eventually(lambda: all_shown(one), 40, "the one left has all rows", every_s=0.2)
        assert not wire.letters


async def test_a_delivery_is_forgotten(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    quick = {"VOXBUS_DEDUP__DELIVERY_RETENTION_S": "3", "VOXBUS_DEDUP__TICK_INTERVAL_S": "0.3"}
    async with dedup_worker(topics_ready, tmp_path, **quick) as worker, bus(topics_ready) as wire:
        event = attempted("r-1", 1, ends=True)
        await wire.producer.deliver(topics.DELIVERIES, encode(event, source="test"))
        await eventually(lambda: seen(worker, "r-1"), 30, "the delivery is shown")

        async def gone() -> bool:
            return (await worker.get("/deliveries/r-1/"))[0] == 404

        await eventually(gone, 30, "the delivery is forgotten")
        assert (await worker.get("/stats/"))[1]["tables"]["deliveries"] == 0
