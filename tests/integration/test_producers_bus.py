"""The client and the log reader on a real bus, without the stages: a stand-in answers the requests."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from infra.errors import UserError
from infra.kafka.clients import BusProducer, bus_producer, new_consumer, start_client
from infra.lifecycle import background
from infra.settings import KafkaSettings
from producers.client import SpeechClient
from producers.connection import ClientSettings
from producers.dead_letters import Choice, letters, whole_message
from producers.lookup import last_status
from producers.topic_log import TopicLog, topic_log
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Message, decode, encode
from schemas.codes import AudioFormat, ErrorCode, State
from schemas.completions import AudioInfo, CompletionData, RequestCompleted, RequestStatus
from schemas.dead_letters import dead_letter
from schemas.requests import SynthesisRequested


def _completed(request_id: str) -> Message:
    audio = AudioInfo(
        url="http://x/y", format=AudioFormat.WAV, bytes=1, sha256="0" * 64, duration_s=1.0, sample_rate=8_000
    )
    data = CompletionData(request_id=request_id, status="completed", audio=audio)
    return encode(RequestCompleted(type="speech.completed", timestamp=utc_now(), data=data), source="test")


def _status(request_id: str, state: State) -> Message:
    return encode(RequestStatus(request_id=request_id, state=state, percent=0, at=utc_now()), source="test")


async def _answer(settings: KafkaSettings, producer: BusProducer) -> None:
    """Every request is accepted and completed at once."""
    consumer = new_consumer(settings, topics.REQUESTS, group=None, client_id="stand-in")
    await start_client(consumer, settings)
    try:
        async for record in consumer:
            request_id = str(decode(SynthesisRequested, record.value).request_id)
            await producer.deliver(topics.STATUS, _status(request_id, State.ACCEPTED))
            await producer.deliver(topics.STATUS, _status(request_id, State.COMPLETED))
            await producer.deliver(topics.COMPLETED, _completed(request_id))
    finally:
        await consumer.stop()


@asynccontextmanager
async def _answering(settings: KafkaSettings) -> AsyncIterator[BusProducer]:
    async with bus_producer(settings, client_id="stand-in") as producer, background(_answer(settings, producer)):
        yield producer


async def test_many_wait_on_one_reader_and_old_ends_are_not_taken_for_theirs(topics_ready: KafkaSettings) -> None:
    async with bus_producer(topics_ready, client_id="before") as producer:
        await producer.deliver(topics.COMPLETED, *(_completed(f"old-{n}") for n in range(50)))
    async with _answering(topics_ready), SpeechClient(topics_ready) as one, SpeechClient(topics_ready) as other:
        asked = [client.synthesize(f"{n}", timeout_s=20) for n in range(50) for client in (one, other)]
        ends = await asyncio.gather(*asked)
    assert len({end.request_id for end in ends}) == 100


async def test_a_request_is_followed_from_its_first_state_to_its_last(topics_ready: KafkaSettings) -> None:
    async with _answering(topics_ready), SpeechClient(topics_ready) as speech:
        seen: list[State] = []
        done = asyncio.Event()

        def note(status: RequestStatus) -> None:
            seen.append(status.state)
            if status.state.terminal:
                done.set()

        pending = await speech.submit("hello", on_status=note)
        await pending.completion(timeout_s=20)
        # The completion may overtake the last status: they are on different topics.
        await asyncio.wait_for(done.wait(), 20)
    assert seen == [State.ACCEPTED, State.COMPLETED]


async def test_a_bus_without_topics_is_named(kafka_settings: KafkaSettings) -> None:
    with pytest.raises(UserError, match=r"has no topic .*tts\.requests; create the topics with `voxbus topics`"):
        async with SpeechClient(kafka_settings):
            pass


async def test_the_log_is_read_to_its_end_whoever_wrote_last(topics_ready: KafkaSettings) -> None:
    """Right behind the writes: the embedded broker's own idea of the end lags."""
    async with bus_producer(topics_ready, client_id="writer") as producer:
        for round_ in range(5):
            for n in range(20):
                await producer.deliver(topics.STATUS, _status(f"r{round_}-{n}", State.ACCEPTED))
            async with topic_log(topics_ready, client_id="test") as log:
                assert len([record async for record in log.records(topics.STATUS)]) == 20 * (round_ + 1)


async def test_the_last_state_is_found_in_the_log(topics_ready: KafkaSettings) -> None:
    settings = ClientSettings(kafka=topics_ready)
    async with bus_producer(topics_ready, client_id="writer") as producer:
        await producer.deliver(topics.STATUS, _status("r1", State.ACCEPTED), _status("r1", State.FAILED))
        await producer.deliver(topics.STATUS, _status("r1", State.QUEUED), _status("r2", State.QUEUED))
    assert '"state":"failed"' in (await last_status(settings, "r1") or "")
    assert '"state":"queued"' in (await last_status(settings, "r2") or "")
    assert await last_status(settings, "r3") is None
    with pytest.raises(UserError, match="1 to 128"):
        await last_status(settings, "not an id")


async def _truncated_letter(log: TopicLog, settings: KafkaSettings, value: bytes, offset_shift: int = 0) -> None:
    """Publish a value, and its dead letter as if it were too long for one."""
    async with bus_producer(settings, client_id="writer", max_request_bytes=4_000_000) as producer:
        metadata = await (await producer.send(topics.REQUESTS, Message(b"key", value, (("h", b"1"),))))
        letter = dead_letter(
            ErrorCode.INVALID_REQUEST,
            "too long",
            stage="dedup",
            topic=topics.REQUESTS,
            partition=metadata.partition,
            offset=metadata.offset + offset_shift,
        )
        message = letter.message_of(b"key", value, (("h", b"1"),))
        assert (b"true" in dict(message.headers)["voxbus_dlq_truncated"]) == (len(value) > 900_000)
        await producer.deliver(topics.DEAD_LETTERS, message)


async def test_a_truncated_letter_is_whole_again_from_where_it_came(topics_ready: KafkaSettings) -> None:
    value = b"x" * 950_000
    async with topic_log(topics_ready, client_id="test") as log, topic_log(topics_ready, client_id="src") as source:
        await _truncated_letter(log, topics_ready, value)
        [letter] = [one async for one in letters(log, Choice())]
        assert len(letter.message.value) < len(value)
        assert await whole_message(source, letter) == Message(b"key", value, (("h", b"1"),))
        # Something else lies there, or nothing any more.
        other = replace(letter, reason=replace(letter.reason, value_sha256=hashlib.sha256(b"").hexdigest()))
        with pytest.raises(UserError, match="something else lies now"):
            await whole_message(source, other)
        gone = replace(letter, reason=replace(letter.reason, offset=99))
        with pytest.raises(UserError, match="no longer kept"):
            await whole_message(source, gone)


async def test_letters_are_chosen_by_id_code_stage_and_topic(topics_ready: KafkaSettings) -> None:
    async with bus_producer(topics_ready, client_id="writer") as producer:
        for code, stage in ((ErrorCode.BAD_AUDIO, "uploader"), (ErrorCode.INTERNAL, "dedup")):
            letter = dead_letter(code, "why", stage=stage, topic=topics.AUDIO, partition=0, offset=0)
            await producer.deliver(topics.DEAD_LETTERS, letter.message_of(b"k", b"v", ()))
        await producer.deliver(topics.DEAD_LETTERS, Message(b"k", b"not one of ours", ()))
    async with topic_log(topics_ready, client_id="test") as log:
        found = {one.reason.code: one async for one in letters(log, Choice())}
        assert set(found) == {ErrorCode.BAD_AUDIO, ErrorCode.INTERNAL}
        bad = found[ErrorCode.BAD_AUDIO]
        for choice in (Choice(frozenset({bad.id})), Choice(code=ErrorCode.BAD_AUDIO), Choice(stage="uploader")):
            assert [one.id async for one in letters(log, choice)] == [bad.id]
        assert [one async for one in letters(log, Choice(topic=topics.REQUESTS))] == []
