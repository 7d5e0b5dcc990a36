"""How long is tried, when storage counts as down, and what is read meanwhile."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from infra.health import Readiness
from schemas import topics
from tests.cut_off_store import cut_off_store
from uploader.intake import paused_topics
from uploader.multipart import part_size
from uploader.object_store import StorageUnavailableError, object_store
from uploader.patience import Patience, delays
from uploader.settings import MIN_PART_BYTES, UploaderFragment
from uploader.storage_state import StorageState


def test_delays_grow_to_a_bound() -> None:
    found = list(itertools.islice(delays(), 12))
    assert 0.1 <= found[0] <= 0.2
    assert all(5.0 <= delay <= 10.0 for delay in found[7:])


async def test_a_late_job_is_tried_once() -> None:
    calls = 0

    async def fails() -> None:
        nonlocal calls
        calls += 1
        raise StorageUnavailableError("down")

    late = Patience.until(datetime.now(UTC) - timedelta(hours=1), otherwise_s=900)
    with pytest.raises(StorageUnavailableError):
        await late.insist(fails, on=StorageUnavailableError)
    assert calls == 1


async def test_other_errors_are_not_repeated() -> None:
    async def fails() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await Patience(60).insist(fails, on=StorageUnavailableError)


async def test_trying_goes_on_until_it_succeeds() -> None:
    answers = iter([StorageUnavailableError("down"), StorageUnavailableError("down"), "there"])
    retried: list[None] = []

    async def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await Patience(60).insist(ask, on=StorageUnavailableError, retrying=lambda: retried.append(None)) == "there"
    assert len(retried) == 2


def test_storage_is_down_when_nothing_gets_through_for_a_while() -> None:
    now = 0.0
    readiness = Readiness("storage")
    state = StorageState(readiness, clock=lambda: now)

    state.failed()
    now = 1.9
    state.failed()
    state.answered()  # one request among good ones is no outage
    now = 3.0
    state.failed()
    assert not state.down
    assert readiness.ready
    now = 5.0
    state.failed()
    assert state.down
    assert readiness.reasons == {"storage": "object storage does not answer"}
    state.answered()
    assert not state.down
    assert readiness.ready


@pytest.mark.parametrize(
    ("storage_down", "in_hand", "spool_full", "paused"),
    [
        (False, 0, False, set()),
        (False, 19, False, set()),
        (False, 20, False, {topics.AUDIO, topics.TRANSCODES}),
        (True, 0, False, {topics.AUDIO, topics.TRANSCODES}),
        (False, 1, True, {topics.AUDIO}),
        (False, 0, True, set()),  # nothing in hand will make room: waiting would be for ever
    ],
)
def test_what_is_read(storage_down: bool, in_hand: int, spool_full: bool, paused: set[str]) -> None:
    found = paused_topics(storage_down=storage_down, in_hand=in_hand, most_in_hand=20, spool_full=spool_full)
    assert found == paused


def test_parts_stay_within_the_bounds_of_s3() -> None:
    assert part_size(6_000_000, MIN_PART_BYTES) == MIN_PART_BYTES
    huge = 100 * 1024**3
    assert -(-huge // part_size(huge, MIN_PART_BYTES)) <= 10_000


async def test_a_download_that_is_cut_off_is_worth_another_attempt() -> None:
    async with cut_off_store() as settings, object_store(settings, UploaderFragment()) as store:
        with pytest.raises(StorageUnavailableError, match="ClientPayloadError"):
            await store.fetch("audio/x", folder=None)
