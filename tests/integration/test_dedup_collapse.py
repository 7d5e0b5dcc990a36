"""One synthesis for many requests, every request ended once."""

import time

import pytest

from infra.settings import KafkaSettings
from schemas import topics
from schemas.codes import Priority, State
from schemas.outcomes import StageProgress
from tests.integration.dedup_bench import bus, dedup_worker
from tests.waiting import eventually

_MANY = 10_000


async def test_new_join_and_stored(topics_ready: KafkaSettings, tmp_path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as worker, bus(topics_ready) as wire:
        first = await wire.request(text="One voice.", callback_url="https://example.com/hook", metadata={"n": 1})
        job = await wire.job()
        assert job.priority is Priority.INTERACTIVE
        assert job.spec.seed is not None
        second = await wire.request(text="One  voice.")
        await eventually(lambda: any(s.request_id == second for s in wire.statuses), 40, "the second request queued")
        await wire.outcome(
            StageProgress(fingerprint=job.fingerprint, job_id=job.job_id, state=State.SYNTHESIZING, percent=40)
        )
        await eventually(lambda: sum(s.percent == 40 for s in wire.statuses) == 2, 40, "progress told to both")
        await wire.speak(job)
        done = await wire.end(first)
        assert done.type == "speech.completed"
        assert done.data.metadata == {"n": 1}
        assert not done.data.cached
        assert done.data.audio
        assert done.data.audio.url.endswith("/wav")
        assert (await wire.end(second)).data.cached is False
        record = next(r for r in wire.records[topics.COMPLETED] if r.key == first.encode())
        assert dict(record.headers)["ce_callbackurl"] == b"https://example.com/hook"
        assert b"example.com" not in record.value
        third = await wire.request(text="One voice.")
        assert (await wire.end(third)).data.cached is True
        assert len(wire.jobs) == 1
        percents = [s.percent for s in wire.statuses if s.request_id == first]
        assert percents == sorted(percents)
        status, row = await worker.get(f"/requests/{first}/")
        assert (status, row["state"], row["percent"]) == (200, "completed", 100)
        assert await worker.stop() == 0
        assert "Traceback" not in worker.log.read_text()


@pytest.mark.timeout(600)  # a second of work on a quiet machine's memory, minutes on a crowded one's object store
async def test_ten_thousand_requests_while_one_synthesis_is_in_flight(topics_ready: KafkaSettings, tmp_path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as worker, bus(topics_ready) as wire:
        began = time.monotonic()
        ids = await wire.requests(_MANY, text="Ten thousand times the same.")
        job = await wire.job()

        async def all_wait() -> bool:
            return bool((await worker.get("/stats/"))[1]["waiters"] == _MANY)

        await eventually(all_wait, 300, "ten thousand waiters", every_s=0.25)
        joined = time.monotonic()
        await wire.speak(job)
        await eventually(lambda: len(wire.records[topics.COMPLETED]) >= _MANY, 200, "ten thousand ends", every_s=0.25)
        ended = time.monotonic()
        assert await worker.ready()

        async def settled() -> bool:
            # Their rows stay for a minute, to know the requests' messages when they come again; nobody waits any more.
            return bool((await worker.get("/stats/"))[1]["waiters"] == 0)

        await eventually(settled, 30, "nobody waits", every_s=0.25)
        assert len(wire.jobs) == 1
        assert sorted(done.data.request_id for done in wire.completions) == sorted(ids)
        print(f"\n{_MANY} joined in {joined - began:.1f} s, ended in {ended - joined:.1f} s")
