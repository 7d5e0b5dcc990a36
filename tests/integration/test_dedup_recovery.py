"""Killed workers lose nothing; two share the load; rows go when their time has come."""

import asyncio
import sys
from pathlib import Path

import pytest

from infra.settings import KafkaSettings
from schemas.codes import AudioFormat, ErrorCode
from tests.environment import environment
from tests.integration.dedup_bench import bus, dedup_worker, failed, transcoded
from tests.waiting import eventually


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
async def test_killed_while_a_synthesis_is_in_flight(topics_ready: KafkaSettings, tmp_path: Path, store: str) -> None:
    variables = {"VOXBUS_DEDUP__STORE": store, "VOXBUS_DEDUP__DATA_DIR": str(tmp_path / "rows")}
    async with bus(topics_ready) as wire:
        async with dedup_worker(topics_ready, tmp_path, **variables) as first:
            done = await wire.served(text="Stored before the kill.")
            # In batches, so that recovery must find the true end of each changelog and not some batch's beginning.
            waiting = await wire.requests(200, text="Still to come.")
            job = await wire.job(2)

            async def all_wait() -> bool:
                return bool((await first.get("/stats/"))[1]["waiters"] == len(waiting))

            await eventually(all_wait, 40, "all wait")
            await first.kill()
        late = await wire.request(text="Still to come.")
        async with dedup_worker(topics_ready, tmp_path, **variables) as second:
            assert (await second.get("/stats/"))[1]["tables"]["requests"] >= 201
            assert (await second.get(f"/requests/{done.data.request_id}/"))[1]["state"] == "completed"
            hit = await wire.request(text="Stored before the kill.")
            assert (await wire.end(hit, 60)).data.cached
            await eventually(lambda: any(s.request_id == late for s in wire.statuses), 40, "the late one queued")
            await wire.speak(job)
            for request_id in [*waiting, late]:
                await wire.end(request_id, 60)
            ends = [end.data.request_id for end in wire.completions]
            assert sorted(ends) == sorted([*waiting, late, hit, done.data.request_id])
            assert {job.job_id for job in wire.jobs} == {wire.jobs[0].job_id, job.job_id}
            assert await second.stop() == 0


async def test_killed_while_requests_pour_in(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    ids: list[str] = []
    async with bus(topics_ready) as wire:
        async with dedup_worker(topics_ready, tmp_path) as first:
            ids += [await wire.request(text=f"Text {number % 20}.") for number in range(150)]
            await eventually(lambda: wire.jobs, 40, "a first job")
            await first.kill()
        async with dedup_worker(topics_ready, tmp_path):
            ids += [await wire.request(text=f"Text {number % 20}.") for number in range(50)]
            told: set[str] = set()

            async def all_ended() -> bool:
                for job in wire.jobs:
                    if job.job_id not in told:
                        told.add(job.job_id)
                        await wire.speak(job)
                return {end.data.request_id for end in wire.completions} == set(ids)

            await eventually(all_ended, 40, "every request has its end")
            assert len({job.fingerprint for job in wire.jobs}) == 20
            assert len({job.job_id for job in wire.jobs}) == 20
            assert all(end.type == "speech.completed" for end in wire.completions)


async def test_two_workers_share_and_either_answers(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as one, bus(topics_ready) as wire:
        async with dedup_worker(topics_ready, tmp_path) as two:

            async def both() -> bool:
                figures = [(await worker.get("/stats/"))[1] for worker in (one, two)]
                return all(figure.get("heard") == 2 for figure in figures) and await one.ready()

            await eventually(both, 30, "both workers know of each other", every_s=0.2)
            ids = [await wire.request(text="For both.") for _ in range(24)]
            job = await wire.job()
            await eventually(
                lambda: len({status.request_id for status in wire.statuses if status.percent == 5}) == 24, 40, "queued"
            )
            for worker in (one, two):
                for request_id in ids:
                    status, row = await worker.get(f"/requests/{request_id}/")
                    assert (status, row["request_id"]) == (200, request_id)
                status, row = await worker.get(f"/syntheses/{job.fingerprint}/")
                assert (status, row["waiters"]) == (200, 24)
                assert (await worker.get("/requests/nobody/"))[0] == 404
                assert (await worker.get(f"/syntheses/{'0' * 64}/"))[0] == 404
                figures = (await worker.get("/stats/"))[1]
                assert figures["tables"] == {"requests": 24, "syntheses": 1, "waiters": 24, "deliveries": 0}
                assert (figures["misses"], figures["joins"], figures["waiters"]) == (1, 23, 24)
            await two.kill()
        await wire.speak(job)
        for request_id in ids:
            await wire.end(request_id, 60)
        again = await wire.request(text="For both.")
        assert (await wire.end(again, 60)).data.cached
        assert len(wire.jobs) == 1


async def test_failed_syntheses_are_not_kept(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as worker, bus(topics_ready) as wire:
        ids = [await wire.request(text="It will fail.") for _ in range(3)]
        job = await wire.job()
        await eventually(lambda: len({s.request_id for s in wire.statuses if s.percent == 5}) == 3, 40, "queued")
        await wire.outcome(failed(job))
        for request_id in ids:
            end = await wire.end(request_id)
            assert end.data.error
            assert (end.data.error.code, end.data.error.attempts) == (ErrorCode.ENGINE_CRASHED, 3)

        async def gone() -> bool:
            return (await worker.get(f"/syntheses/{job.fingerprint}/"))[0] == 404

        await eventually(gone, 40, "the failed synthesis is forgotten")
        again = await wire.request(text="It will fail.")
        second = await wire.job(2)
        assert second.job_id != job.job_id
        await wire.outcome(failed(job))  # told again, late: nobody of the new job is touched
        await wire.speak(second)
        assert (await wire.end(again)).type == "speech.completed"
        assert len(wire.completions) == 4


async def test_a_format_that_is_not_there_is_made_from_the_master(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    async with dedup_worker(topics_ready, tmp_path), bus(topics_ready) as wire:
        await wire.served(text="Many formats.")
        assert (await wire.served(text="Many formats.", format="flac")).data.cached
        ids = [await wire.request(text="Many formats.", format="mp3") for _ in range(2)]
        order = (await eventually(lambda: wire.transcodes, 40, "an order"))[0]
        assert order.formats == (AudioFormat.MP3,)
        await eventually(lambda: len([s for s in wire.statuses if s.request_id in ids and s.percent == 5]) == 2, 40)
        await wire.outcome(transcoded(order))
        for request_id in ids:
            end = await wire.end(request_id)
            assert end.data.cached
            assert end.data.audio
            assert end.data.audio.format is AudioFormat.MP3
        assert len(wire.transcodes) == len(wire.jobs) == 1


async def test_the_clock(topics_ready: KafkaSettings, tmp_path: Path) -> None:
    quick = {
        "VOXBUS_DEDUP__STORED_TTL_S": "1",
        "VOXBUS_DEDUP__REDRIVE_AFTER_S": "1",
        "VOXBUS_DEDUP__MAX_DRIVES": "2",
        "VOXBUS_DEDUP__TICK_INTERVAL_S": "0.2",
        "VOXBUS_DEDUP__REQUEST_RETENTION_S": "1",
    }
    async with dedup_worker(topics_ready, tmp_path, **quick) as worker, bus(topics_ready) as wire:
        silent = await wire.request(text="Nobody speaks this.", expires_in_s=6)
        brief = await wire.request(text="Nobody speaks this.", expires_in_s=1)
        assert (await wire.end(brief)).type == "speech.expired"
        # No worker began it, so it may wait until its time is over; it is driven again meanwhile, in case it was lost.
        assert (await wire.end(silent, 60)).type == "speech.expired"
        assert [job.drive for job in wire.jobs] == [1, 2]
        assert len({job.job_id for job in wire.jobs}) == 1
        done = await wire.served(text="Kept for a second.", expires_in_s=1)

        async def forgotten() -> bool:
            figures = (await worker.get("/stats/"))[1]["tables"]
            return figures["syntheses"] == 0 and (await worker.get(f"/requests/{done.data.request_id}/"))[0] == 404

        await eventually(forgotten, 40, "rows past their time are gone")
        assert not (await wire.served(text="Kept for a second.")).data.cached


async def test_a_worker_without_bus_says_so(tmp_path: Path) -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:9", start_timeout_s=0.5)
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "synth_consumer.dedup"), stderr=stream, env=environment(kafka=nowhere)
        )
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert log.read_text().splitlines()[-1].startswith("voxbus: Kafka does not answer at 127.0.0.1:9")
