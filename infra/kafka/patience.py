"""Fetches that wait longer when the broker did not get round to an answer in time.

Tansu 0.6, the embedded broker, lists every batch a partition ever got before it answers a fetch (13 µs each), and cuts
that short when the fetch's wait is over: the answer then carries the high watermark and no record. With one short
wait for all, a partition of a few thousand small batches is never read again. A long wait for all would cost its
time at every hop, for the broker does not wake up on new data. So the wait is short until an answer says that records
are there which it does not bring; the fetch after that one may take as long as it needs, and is answered as soon as
the records are found. Apache Kafka never gives such an answer.

A record is counted before it can be read, for some milliseconds. A fetch that comes in between finds nothing and is
answered after half its wait at the earliest, so no wait may be much longer than what finding takes, which the answers
show: a quick one by its time, one of half the wait or more by nothing, as the broker may have slept, so half is tried.
Figures: `docs/decisions/0012-patient-fetches.md`.
"""

import time
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

# Of half a million batches in one partition; well below the 20 s after which an answer is no longer waited for.
LONGEST_MS = 8_000
_MARGIN = 2  # times what finding took; more batches and a busy machine make it longer the next time


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the next fetch may wait. Milliseconds."""

    base_ms: int
    """While nothing is known to be there."""
    wait_ms: int
    """Of the next fetch."""
    enough_ms: int
    """What would have been enough the last time; tried first when records are left behind again."""

    @classmethod
    def at_rest(cls, base_ms: int) -> "Patience":
        """Nothing fetched yet."""
        return cls(base_ms, base_ms, base_ms)

    def after(self, *, left_behind: bool, took_ms: int) -> "Patience":
        """The patience after an answer.

        Args:
            left_behind: some partition has records that the answer should have brought and did not.
            took_ms: how long it took.
        """
        if not left_behind:
            return Patience(self.base_ms, self.base_ms, self._enough(took_ms))
        longer = min(max(2 * self.wait_ms, self.enough_ms), max(LONGEST_MS, self.base_ms))
        return Patience(self.base_ms, longer, self.enough_ms)

    def _enough(self, took_ms: int) -> int:
        if self.wait_ms <= self.base_ms:
            return self.enough_ms
        needed_ms = _MARGIN * took_ms
        return needed_ms if needed_ms < self.wait_ms else self.wait_ms // 2


def fetch_patiently(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer that is not started yet adapt its `fetch_max_wait_ms`, which is the shortest wait from then on.

    aiokafka has no hook for it: its fetcher is made by `start`, and reads the wait anew for every request.
    """
    start = consumer.start

    async def start_patiently() -> None:
        await start()
        _attend(consumer._fetcher)

    consumer.start = start_patiently


def _attend(fetcher: Any) -> None:
    patience = Patience.at_rest(fetcher._fetch_max_wait_ms)
    answered = fetcher._proc_fetch_request

    async def attended(assignment: Any, node_id: Any, request: Any) -> Any:
        nonlocal patience
        began = time.monotonic()
        result = await answered(assignment, node_id, request)
        if assignment.active:
            took_ms = round((time.monotonic() - began) * 1_000)
            patience = patience.after(left_behind=_left_behind(fetcher, assignment, request), took_ms=took_ms)
            fetcher._fetch_max_wait_ms = patience.wait_ms
        return result

    fetcher._proc_fetch_request = attended


def _left_behind(fetcher: Any, assignment: Any, request: Any) -> bool:
    for topic, partitions in request.topics:
        for partition, offset, _ in partitions:
            one = TopicPartition(topic, partition)
            # What an answer brought lies here until it is handed out, which cannot have happened yet.
            if one in fetcher._records:
                continue
            state = assignment.state_value(one)
            if state is None or not state.has_valid_position or state.position != offset:
                continue
            if state.highwater is not None and state.highwater > offset:
                return True
    return False
