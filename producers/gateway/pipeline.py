"""The picture of the pipeline for the console: figures of dedup, of the gateway and of the stages' health servers."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from prometheus_client.parser import text_string_to_metric_families

from producers.gateway.backpressure import Backpressure
from schemas.codes import Priority

_TIMEOUT_S = 1.0
_MAX_PAGE_BYTES = 2**20
_LANES = "voxbus_synth_lanes"
_LANES_KEPT = 5  # times as long as what the console shows, as lanes come and go with workers
_SHOWN = {
    "voxbus_synth_slots": "state",
    _LANES: "",
    "voxbus_synth_lanes_busy": "",
    "voxbus_synth_audio_seconds_total": "",
    "voxbus_synth_takes_total": "result",
    "voxbus_synth_engine_restarts_total": "",
    "voxbus_uploader_takes_total": "result",
    "voxbus_uploader_stored_bytes_total": "format",
    "voxbus_uploader_growing_takes": "",
    "voxbus_webhooks_total": "state",
    "voxbus_webhook_attempts_total": "result",
    "voxbus_webhooks_queued": "",
    "voxbus_webhooks_running": "",
    "voxbus_dead_letters_total": "code",
    "voxbus_in_flight": "",
}


class Pipeline:
    """Fetches at most every `every_s`, however many look."""

    def __init__(
        self, http: ClientSession, stages: Mapping[str, str], backpressure: Backpressure, *, every_s: float
    ) -> None:
        self._http, self._stages, self._backpressure, self._every_s = http, dict(stages), backpressure, every_s
        self._lock = asyncio.Lock()
        self._fetched_at = float("-inf")
        self._pictures: dict[str, Any] = {}

    async def picture(self) -> dict[str, Any]:
        """JSON data."""
        await self._refresh(self._every_s)
        return {
            "dedup": self._backpressure.stats,
            "queue": {
                "audio_s": round(self._backpressure.queued_audio_s, 1),
                "speed": round(self._backpressure.speed, 2),
                "estimated_start_s": self._backpressure.estimated_start_s,
                "estimated_bulk_start_s": self._backpressure.start_estimate_s(Priority.BULK),
            },
            "stages": self._pictures,
        }

    async def lanes(self) -> int:
        """Lanes of all workers together, as told within the last few seconds; 0 when none tells."""
        await self._refresh(_LANES_KEPT * self._every_s)
        return int(sum(value for one in self._pictures.values() for value in one["figures"].get(_LANES, {}).values()))

    async def _refresh(self, max_age_s: float) -> None:
        async with self._lock:
            if time.monotonic() - self._fetched_at > max_age_s:
                names = list(self._stages)
                figures = await asyncio.gather(*(self._stage(self._stages[name]) for name in names))
                self._pictures = dict(zip(names, figures, strict=True))
                self._fetched_at = time.monotonic()

    async def _stage(self, base: str) -> dict[str, Any]:
        try:
            async with self._http.get(base.rstrip("/") + "/metrics", timeout=ClientTimeout(_TIMEOUT_S)) as response:
                page = await response.content.read(_MAX_PAGE_BYTES)
            return {"up": True, "figures": figures_of(page.decode("utf-8", "replace"))}
        except (ClientError, TimeoutError, ValueError):
            return {"up": False, "figures": {}}


def figures_of(page: str) -> dict[str, dict[str, float]]:
    """The shown figures of a Prometheus page: name → value of the telling label ("" when there is none) → sum."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            label = _SHOWN.get(sample.name)
            if label is not None:
                values = found.setdefault(sample.name, {})
                name = sample.labels.get(label, "")
                values[name] = values.get(name, 0.0) + sample.value
    return found
