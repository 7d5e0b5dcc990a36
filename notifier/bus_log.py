"""Reads what stands on a topic now: from the start, only its newest part, or backwards from its end."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.clients import new_consumer, start_client
from infra.kafka.ends import end_offsets
from infra.settings import KafkaSettings

Positions = dict[TopicPartition, int]


async def read_log(
    settings: KafkaSettings, topic: str, *, newest: int | None = None, positions: Positions | None = None
) -> AsyncIterator[ConsumerRecord]:
    """Every record of a topic up to its present end, in order within each partition.

    Args:
        settings: cluster.
        topic: name without namespace; it exists.
        newest: at most about so many, the newest; all that is kept when absent.
        positions: where an earlier reading ended; brought up to date, so that the next goes on there.

    Raises:
        ServerUnavailableError: the bus does not answer.
    """
    positions = {} if positions is None else positions
    consumer = new_consumer(settings, topic, group=None, client_id="voxbus-notify-log")
    try:
        await start_client(consumer, settings)
        partitions = list(consumer.assignment())
        ends = await end_offsets(settings, partitions)
        begins = await consumer.beginning_offsets(partitions)
        for partition in partitions:
            tail = 0 if newest is None else ends[partition] - newest // len(partitions)
            positions[partition] = max(begins[partition], positions.get(partition, tail))
            consumer.seek(partition, positions[partition])
        while any(positions[partition] < ends[partition] for partition in partitions):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    yield record
            # Positions, not records: a log can end in a gap.
            for partition in partitions:
                positions[partition] = await consumer.position(partition)
    finally:
        await consumer.stop()


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a topic, read from its end."""

    records: list[ConsumerRecord]
    """Of each partition the newest first."""
    unread_ms: int
    """What is not read yet was published at this moment at the latest, in milliseconds since 1970; 0 at the end."""


async def read_back(settings: KafkaSettings, topic: str, *, step: int = 500) -> AsyncGenerator[Page, None]:
    """Every record of a topic from its present end backwards, so that who wants the newest need not read them all.

    Args:
        settings: cluster.
        topic: name without namespace; it exists.
        step: how many records of each partition a page has at most.

    Raises:
        ServerUnavailableError: the bus does not answer.
    """
    consumer = new_consumer(settings, topic, group=None, client_id="voxbus-notify-log")
    try:
        await start_client(consumer, settings)
        partitions = list(consumer.assignment())
        tops = await end_offsets(settings, partitions)
        begins = await consumer.beginning_offsets(partitions)
        oldest = dict.fromkeys(partitions, 0)
        while left := [partition for partition in partitions if tops[partition] > begins[partition]]:
            records: list[ConsumerRecord] = []
            for partition in left:
                low = max(begins[partition], tops[partition] - step)
                part = await _stretch(consumer, partition, low, tops[partition])
                tops[partition] = low
                oldest[partition] = part[0].timestamp if part else oldest[partition]
                records += reversed(part)
            yield Page(records, max((oldest[p] for p in left if tops[p] > begins[p]), default=0))
    finally:
        await consumer.stop()


async def _stretch(consumer: AIOKafkaConsumer, partition: TopicPartition, low: int, high: int) -> list[ConsumerRecord]:
    records: list[ConsumerRecord] = []
    consumer.seek(partition, low)
    while await consumer.position(partition) < high:
        for record in (await consumer.getmany(partition, timeout_ms=200)).get(partition, ()):
            if record.offset < high:
                records.append(record)
    return records
