"""Keeps the audio topic from filling the disk, for the embedded broker does not enforce retention.

All that broker can do is delete a topic, which frees its objects and forgets its groups' offsets: readers begin anew at
0. So the topic goes when nobody misses it: before the stages start, when the uploader has committed all of it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from infra.embedded.endpoints import Endpoints, as_environment
from infra.embedded.servers import BUS_BUCKET, CLUSTER
from infra.errors import UserError
from infra.kafka.clients import connection_options, start_client
from infra.kafka.ends import end_offsets
from infra.settings import KafkaSettings
from schemas.topics import AUDIO

READER = "voxbus.upload"
"""The uploader's consumer group: the one reader whose missing a chunk would lose audio."""
# The broker deletes object by object before it answers.
_DELETE_TIMEOUT_MS = 120_000

Decision = Literal["small", "unread", "drop"]


@dataclass(frozen=True, slots=True)
class TopicSize:
    """What a topic takes in the object store."""

    objects: int
    bytes: int


def decide(size: TopicSize, bound_bytes: int, unread: Mapping[int, int]) -> Decision:
    """Whether the topic goes.

    Args:
        size: what it takes.
        bound_bytes: up to this it stays.
        unread: partition → records the uploader has not committed.
    """
    if size.bytes <= bound_bytes:
        return "small"
    return "unread" if any(unread.values()) else "drop"


async def tidy(endpoints: Endpoints, settings: KafkaSettings, *, bound_bytes: int) -> str | None:
    """Drop the audio topic when it is large and read; create it again afterwards.

    Call before stages start: nobody may read or write it meanwhile. A crash between leaves no topic, which the next
    start creates.

    Returns:
        A line for people when something was done, or should have been; else None.
    """
    size = await audio_size(endpoints, settings)
    if decide(size, bound_bytes, {}) == "small":
        return None
    async with _admin(settings) as admin:
        unread = await _unread(admin, settings)
        if decide(size, bound_bytes, unread) == "unread":
            return f"audio on the bus: {_mib(size)}, kept, as {sum(unread.values())} records wait for the uploader"
        try:
            await admin.delete_topics([settings.namespace + AUDIO], timeout_ms=_DELETE_TIMEOUT_MS)
        except KafkaError as error:
            return f"audio on the bus: {_mib(size)}, could not be freed ({type(error).__name__}); tried again next time"
    return f"audio on the bus: {_mib(size)} freed, all of it was uploaded"


async def audio_size(endpoints: Endpoints, settings: KafkaSettings) -> TopicSize:
    """What the audio topic takes, by a listing of the broker's bucket.

    Raises:
        UserError: the object store does not answer.
    """
    from aiobotocore.session import get_session  # noqa: PLC0415 - half a second that the servers alone do not need

    prefix = f"clusters/{CLUSTER}/topics/{settings.namespace}{AUDIO}/"
    objects = total = 0
    environment = as_environment(endpoints)
    client = get_session().create_client(
        "s3",
        endpoint_url=endpoints.s3,
        region_name=endpoints.s3_region,
        aws_access_key_id=environment["VOXBUS_S3__ACCESS_KEY_ID"],
        aws_secret_access_key=environment["VOXBUS_S3__SECRET_ACCESS_KEY"],
    )
    async with client as s3:
        try:
            async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUS_BUCKET, Prefix=prefix):
                found = page.get("Contents", ())
                objects += len(found)
                total += sum(entry["Size"] for entry in found)
        except s3.exceptions.NoSuchBucket:
            return TopicSize(0, 0)
        except Exception as error:  # botocore's errors have no common ancestor but this
            raise UserError(
                f"the object store at {endpoints.s3} does not list the bus ({type(error).__name__})"
            ) from None
    return TopicSize(objects, total)


async def _unread(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> dict[int, int]:
    topic = settings.namespace + AUDIO
    described = await admin.describe_topics([topic])
    partitions = [TopicPartition(topic, row["partition"]) for row in described[0]["partitions"]]
    ends = await end_offsets(settings, partitions)
    # Named one by one: without partitions this request breaks the embedded broker's connection.
    committed = await admin.list_consumer_group_offsets(settings.namespace + READER, partitions=partitions)
    # A group without a commit answers -1, which is nothing read.
    return {each.partition: ends[each] - max(0, committed[each].offset) for each in partitions}


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    options: dict[str, Any] = connection_options(settings) | {"request_timeout_ms": _DELETE_TIMEOUT_MS}
    admin = AIOKafkaAdminClient(client_id="voxbus-janitor", **options)
    try:
        await start_client(admin, settings)
        yield admin
    finally:
        await admin.close()


def _mib(size: TopicSize) -> str:
    return f"{size.bytes / 1024 / 1024:.0f} MiB"
