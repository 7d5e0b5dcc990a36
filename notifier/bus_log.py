"""Reads what stands on a topic now, from the start or only its newest part."""

from collections.abc import AsyncIterator

from aiokafka import ConsumerRecord, TopicPartition

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
