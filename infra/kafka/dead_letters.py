"""Sends what cannot be handled to the dead-letter topic, whole, with its reason."""

from aiokafka import ConsumerRecord
from aiokafka.errors import MessageSizeTooLargeError

from infra import metrics
from infra.kafka.clients import BusProducer
from infra.logging import get_logger
from schemas import topics
from schemas.codes import ErrorCode
from schemas.dead_letters import MAX_BYTES, DeadLetter, dead_letter

_log = get_logger(__name__)
# A cluster may take less than Kafka's default; at last only the reason goes, and where the message lies.
_SIZES = (MAX_BYTES, 131_072, 16_384, 0)


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

    A letter that the broker finds too large is cut until it fits: sent again unchanged it would be refused for ever.

    Args:
        producer: where to publish.
        record: the original, untouched.
        code: why, from the closed list.
        message: why, in words; never the content.
        stage: who could not handle it.
        topic: the record's topic without namespace.
        pointer: JSON pointer to the field at fault, "" for the whole message.

    Raises:
        KafkaError: the broker did not take it for another reason than its size.
    """
    letter = dead_letter(
        code, message, pointer=pointer, stage=stage, topic=topic, partition=record.partition, offset=record.offset
    )
    await _deliver(producer, letter, record)
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


async def _deliver(producer: BusProducer, letter: DeadLetter, record: ConsumerRecord) -> None:
    headers = [(name, value) for name, value in record.headers or () if value is not None]
    for most_bytes in _SIZES:
        message = letter.message_of(record.key, record.value, headers, most_bytes=most_bytes)
        try:
            await producer.deliver(topics.DEAD_LETTERS, message)
            return
        except MessageSizeTooLargeError:
            continue
    _log.error(
        "dead letter not kept: the topic takes not even its reason; the message lies at its offset",
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
    )
