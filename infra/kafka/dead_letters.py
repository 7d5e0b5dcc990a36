"""Sends what cannot be handled to the dead-letter topic, whole, with its reason."""

from aiokafka import ConsumerRecord

from infra import metrics
from infra.kafka.clients import BusProducer
from infra.logging import get_logger
from schemas import topics
from schemas.codes import ErrorCode
from schemas.dead_letters import dead_letter

_log = get_logger(__name__)


async def send_dead_letter(
    producer: BusProducer,
    record: ConsumerRecord,
    code: ErrorCode,
    message: str,
    *,
    stage: str,
    topic: str,
    pointer: str = "",
) -> None:
    """Put a record on the dead-letter topic and wait until the broker has it.

    Args:
        producer: where to publish.
        record: the original, untouched.
        code: why, from the closed list.
        message: why, in words; never the content.
        stage: who could not handle it.
        topic: the record's topic without namespace.
        pointer: JSON pointer to the field at fault, "" for the whole message.
    """
    letter = dead_letter(
        code, message, pointer=pointer, stage=stage, topic=topic, partition=record.partition, offset=record.offset
    )
    headers = [(name, value) for name, value in record.headers or () if value is not None]
    await producer.deliver(topics.DEAD_LETTERS, letter.message_of(record.key, record.value, headers))
    metrics.DEAD_LETTERED.labels(stage, code).inc()
    _log.warning(
        "dead letter",
        code=code,
        reason=message,
        pointer=pointer,
        topic=topic,
        partition=record.partition,
        offset=record.offset,
    )
