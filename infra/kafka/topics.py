"""Creates and checks the topics of `schemas.topics` on a cluster."""

from dataclasses import dataclass
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from infra.errors import UserError
from infra.kafka.clients import connection_options, start_client
from infra.settings import KafkaSettings
from schemas.topics import TOPICS, Topic


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as found."""

    name: str
    partitions: int
    wanted: int
    result: Literal["created", "present", "missing", "too few partitions"]

    @property
    def good(self) -> bool:
        """Whether stages can work with it."""
        return self.result in {"created", "present"}


def wanted_partitions(topic: Topic, settings: KafkaSettings) -> int:
    """Partitions a topic is created with."""
    return topic.partitions or settings.partitions


async def ensure_topics(settings: KafkaSettings, *, create: bool = True) -> list[TopicState]:
    """Create what is missing and report every topic of the table.

    Args:
        settings: cluster, namespace, number of partitions.
        create: False only looks.

    Raises:
        ServerUnavailableError: the bus does not answer.
        UserError: the cluster refused to create a topic.
    """
    admin = AIOKafkaAdminClient(client_id="voxbus-topics", **connection_options(settings))
    await start_client(admin, settings)
    try:
        present = await _partition_counts(admin, settings)
        missing = [topic for name, topic in TOPICS.items() if name not in present]
        if create and missing:
            await _create(admin, missing, settings)
        created = {topic.name for topic in missing} if create else set()
        return [_state(topic, present, created, settings) for topic in TOPICS.values()]
    finally:
        await admin.close()


def require_topics(states: list[TopicState]) -> None:
    """End with one clear message when a topic is not as it must be.

    Raises:
        UserError: names the topics and the command that creates them.
    """
    bad = [f"{state.name} ({state.result}: {state.partitions} of {state.wanted})" for state in states if not state.good]
    if bad:
        raise UserError(f"topics are not ready: {', '.join(bad)}; create them with `voxbus topics`")


def _state(topic: Topic, present: dict[str, int], created: set[str], settings: KafkaSettings) -> TopicState:
    wanted = wanted_partitions(topic, settings)
    if topic.name in created:
        return TopicState(topic.name, wanted, wanted, "created")
    found = present.get(topic.name, 0)
    if found == 0:
        return TopicState(topic.name, 0, wanted, "missing")
    return TopicState(topic.name, found, wanted, "present" if found >= wanted else "too few partitions")


async def _partition_counts(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> dict[str, int]:
    names = set(await admin.list_topics())
    ours = [settings.namespace + name for name in TOPICS if settings.namespace + name in names]
    if not ours:
        return {}
    described = await admin.describe_topics(ours)
    return {row["topic"].removeprefix(settings.namespace): len(row["partitions"]) for row in described}


async def _create(admin: AIOKafkaAdminClient, topics: list[Topic], settings: KafkaSettings) -> None:
    response = await admin.create_topics(
        [
            NewTopic(
                name=settings.namespace + topic.name,
                num_partitions=wanted_partitions(topic, settings),
                replication_factor=settings.replication_factor,
                topic_configs={"cleanup.policy": topic.cleanup_policy, "retention.ms": str(topic.retention_ms)},
            )
            for topic in topics
        ],
        timeout_ms=settings.request_timeout_ms,
    )
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # Two stages may start at once; the second finds what the first made.
        if code and error is not TopicAlreadyExistsError:
            raise UserError(f"topic {name} cannot be created: {error.__name__} {rest[0] if rest else ''}".strip())
