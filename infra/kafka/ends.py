"""Where logs really end.

Tansu 0.6, the embedded broker, answers ListOffsets "latest" with the base of one of its last batches, which may lie
thousands of records before the end (on object storage it takes any batch of the last second). The high watermark that
comes with every fetch is right there and on Apache Kafka alike, so ends are taken from a fetch. `seek_to_end`,
`auto_offset_reset="latest"` and `end_offsets` of a client carry the mistake: do not lean on them.
"""

import asyncio
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.kafka.clients import connection_options, start_client, unreachable
from infra.settings import KafkaSettings

_TIMEOUT_S = 15.0


async def end_offsets(settings: KafkaSettings, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The offset the next record of each partition will get.

    Args:
        settings: cluster.
        partitions: with the namespace in their topics' names; the topics exist.

    Raises:
        ServerUnavailableError: the bus does not answer.
    """
    if not partitions:
        return {}
    consumer = AIOKafkaConsumer(
        client_id="voxbus-ends",
        enable_auto_commit=False,
        fetch_max_wait_ms=20,  # at the end there is nothing to wait for
        max_partition_fetch_bytes=1,  # one batch at most comes along; only the watermark is wanted
        auto_offset_reset="earliest",
        **connection_options(settings),
    )
    try:
        await start_client(consumer, settings)
        async with asyncio.timeout(_TIMEOUT_S):
            return await _watermarks(consumer, partitions)
    except TimeoutError:
        raise unreachable(settings) from None
    finally:
        await consumer.stop()


async def _watermarks(consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    consumer.assign(list(partitions))
    # The answer is too low at worst, and never below what is kept: a good place to fetch a little from.
    for partition, offset in (await consumer.end_offsets(list(partitions))).items():
        consumer.seek(partition, offset)
    while True:
        ends = {partition: consumer.highwater(partition) for partition in partitions}
        if all(end is not None for end in ends.values()):
            return ends
        await consumer.getmany(timeout_ms=50)
