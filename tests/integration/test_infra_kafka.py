"""The bus as every stage uses it: publish, take work, commit behind it, dead-letter what cannot be handled."""

from aiokafka import ConsumerRecord

from infra.kafka.clients import bus_producer, new_consumer
from infra.kafka.dead_letters import send_dead_letter
from infra.kafka.topics import ensure_topics
from infra.kafka.work import WorkConsumer, work_consumer
from infra.settings import KafkaSettings
from producers.topic_log import topic_log
from schemas import topics
from schemas.codec import Message, decode, encode
from schemas.codes import ErrorCode
from schemas.dead_letters import original_headers, read_dead_letter
from schemas.requests import SynthesisRequested
from tests.waiting import eventually


async def _take(work: WorkConsumer, count: int) -> list[ConsumerRecord]:
    taken: list[ConsumerRecord] = []

    async def enough() -> bool:
        taken.extend(await work.fetch(max_records=count - len(taken)))
        return len(taken) >= count

    await eventually(enough, 15, f"{count} records")
    return taken


async def _publish(settings: KafkaSettings, *texts: str) -> None:
    events = [SynthesisRequested(request_id=f"r{number}", text=text) for number, text in enumerate(texts)]
    async with bus_producer(settings, client_id="test") as producer:
        await producer.deliver(topics.REQUESTS, *(encode(event, source="test") for event in events))


async def test_topics_are_created_once_and_then_found(kafka_settings: KafkaSettings) -> None:
    assert {state.result for state in await ensure_topics(kafka_settings, create=False)} == {"missing"}
    assert {state.result for state in await ensure_topics(kafka_settings)} == {"created"}
    assert {state.result for state in await ensure_topics(kafka_settings)} == {"present"}
    more = kafka_settings.model_copy(update={"partitions": kafka_settings.partitions + 1})
    assert "too few partitions" in {state.result for state in await ensure_topics(more)}


async def test_unfinished_work_comes_again(topics_ready: KafkaSettings) -> None:
    settings = topics_ready
    await _publish(settings, "one", "two", "three")
    async with work_consumer(settings, topics=[topics.REQUESTS], group="g", stage="test") as work:
        for record in await _take(work, 3):
            if decode(SynthesisRequested, record.value).text != "two":
                work.finish(record)
        assert work.in_flight == 1
    async with work_consumer(settings, topics=[topics.REQUESTS], group="g", stage="test") as work:
        again = await _take(work, 1)
        assert "two" in {decode(SynthesisRequested, record.value).text for record in again}


async def test_finished_work_does_not_come_again(topics_ready: KafkaSettings) -> None:
    settings = topics_ready
    await _publish(settings, "one", "two")
    async with work_consumer(settings, topics=[topics.REQUESTS], group="g", stage="test") as work:
        for record in await _take(work, 2):
            work.finish(record)
    await _publish(settings, "three")
    async with work_consumer(settings, topics=[topics.REQUESTS], group="g", stage="test") as work:
        [record] = await _take(work, 1)
        assert decode(SynthesisRequested, record.value).text == "three"


async def test_a_dead_letter_keeps_the_original_whole(topics_ready: KafkaSettings) -> None:
    settings = topics_ready
    original = Message(b"key", b"{broken", (("x-own", b"1"),))
    async with (
        bus_producer(settings, client_id="test") as producer,
        work_consumer(settings, topics=[topics.REQUESTS], group="g", stage="test") as work,
    ):
        await producer.deliver(topics.REQUESTS, original)
        [record] = await _take(work, 1)
        await send_dead_letter(
            producer, record, ErrorCode.INVALID_REQUEST, "not JSON", stage="test", topic=work.topic_of(record)
        )
        work.finish(record)
    reader = new_consumer(settings, topics.DEAD_LETTERS, group=None, client_id="test")
    await reader.start()
    try:
        kept = await reader.getone()
    finally:
        await reader.stop()
    letter = read_dead_letter(kept.headers)
    assert (letter.code, letter.topic, letter.offset) == (ErrorCode.INVALID_REQUEST, topics.REQUESTS, record.offset)
    assert (kept.key, kept.value, original_headers(kept.headers)) == (original.key, original.value, original.headers)


async def test_a_letter_that_the_topic_finds_too_large_is_cut_until_it_fits(topics_ready: KafkaSettings) -> None:
    giant = record_of(b"k" * 300_000, b"x" * 300_000, [("h", b"v" * 290_000)])
    async with bus_producer(topics_ready, client_id="test", max_request_bytes=100_000) as producer:
        await send_dead_letter(
            producer, giant, ErrorCode.INVALID_REQUEST, "too large", stage="test", topic=topics.REQUESTS
        )
    async with topic_log(topics_ready, client_id="test") as log:
        [letter] = [read_dead_letter(record.headers) async for record in log.records(topics.DEAD_LETTERS)]
    assert (letter.truncated, letter.value_bytes, letter.offset) == (True, 300_000, 7)


async def test_a_letter_that_cannot_be_kept_at_all_does_not_hold_up_the_partition(topics_ready: KafkaSettings) -> None:
    async with bus_producer(topics_ready, client_id="test", max_request_bytes=400) as producer:
        await send_dead_letter(
            producer, record_of(b"k", b"v", []), ErrorCode.INTERNAL, "?", stage="test", topic=topics.REQUESTS
        )
    async with topic_log(topics_ready, client_id="test") as log:
        assert not [record async for record in log.records(topics.DEAD_LETTERS)]


def record_of(key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> ConsumerRecord:
    return ConsumerRecord(
        topic=topics.REQUESTS,
        partition=0,
        offset=7,
        timestamp=0,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=len(key),
        serialized_value_size=len(value),
        headers=headers,
    )
