"""Bad input ends clearly, and the next good request is served as if nothing had happened."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings
from schemas import topics
from schemas.codec import Message
from schemas.codes import ErrorCode
from tests.integration.dedup_bench import Bus, bus, dedup_worker
from tests.waiting import eventually

# name → fields of an otherwise good request, code, pointer
_BAD_FIELDS: dict[str, tuple[dict[str, Any], ErrorCode, str]] = {
    "unknown voice": ({"voice": "nobody"}, ErrorCode.UNSUPPORTED_VOICE, "/voice"),
    "unknown dialect": ({"dialect": "martian"}, ErrorCode.UNSUPPORTED_DIALECT, "/dialect"),
    "dialect of another language": (
        {"dialect": "english", "language": "zh"},
        ErrorCode.UNSUPPORTED_DIALECT,
        "/dialect",
    ),
    "unknown language": ({"language": "fr"}, ErrorCode.INVALID_REQUEST, "/language"),
    "only emoji": ({"text": "🎉🎉 🎊"}, ErrorCode.TEXT_NOT_SPEAKABLE, "/text"),
    "too long": ({"text": "a" * 10_001}, ErrorCode.INVALID_REQUEST, "/text"),
    "empty": ({"text": ""}, ErrorCode.INVALID_REQUEST, "/text"),
    "callback is not http": ({"callback_url": "ftp://example.com/x"}, ErrorCode.INVALID_REQUEST, "/callback_url"),
    "speed": ({"speed": 10}, ErrorCode.INVALID_REQUEST, "/speed"),
}
# name → value, pointer; nobody can be told
_BAD_VALUES: dict[str, tuple[bytes | None, str]] = {
    "no JSON": (b'{"text": "Hello', ""),
    "not UTF-8": (b'{"text": "\xff\xfe"}', ""),
    "no value": (None, ""),
    "a list": (b'["Hello"]', ""),
    "id with spaces": (b'{"request_id": "has spaces", "text": "Hello"}', "/request_id"),
    "no text and no id": (b'{"voice": "female1"}', "/text"),
}


async def _publish(wire: Bus, value: bytes | None, key: bytes | None = None) -> None:
    message = Message(key, value, ())  # type: ignore[arg-type]  # None is what a foreign publisher can send
    await wire.producer.deliver(topics.REQUESTS, message)


async def test_every_bad_input_has_its_end(topics_ready: KafkaSettings, tmp_path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as worker, bus(topics_ready) as wire:
        told: dict[str, str] = {}
        for name, (fields, _, _) in _BAD_FIELDS.items():
            told[name] = request_id = uuid.uuid4().hex
            content = {"request_id": request_id, "text": "Hello", "metadata": {"case": name}, **fields}
            await _publish(wire, json.dumps(content).encode(), request_id.encode())
        for value, _ in _BAD_VALUES.values():
            await _publish(wire, value, b"k")
        count = len(_BAD_FIELDS) + len(_BAD_VALUES)
        await eventually(lambda: len(wire.letters) == count, 40, "every bad message is a dead letter")
        found = {(letter.code, letter.pointer) for letter in wire.letters}
        assert found == {(code, pointer) for _, code, pointer in _BAD_FIELDS.values()} | {
            (ErrorCode.INVALID_REQUEST, pointer) for _, pointer in _BAD_VALUES.values()
        }
        for name, (_, code, _) in _BAD_FIELDS.items():
            end = await wire.end(told[name])
            assert (end.type, end.data.error and end.data.error.code) == ("speech.failed", code), name
            assert end.data.metadata == {"case": name}
        assert len(wire.completions) == len(_BAD_FIELDS)
        assert (await wire.served(text="Good again.")).type == "speech.completed"
        status, row = await worker.get(f"/requests/{told['unknown voice']}/")
        assert (status, row["state"], row["error"]["code"]) == (200, "failed", "unsupported_voice")


async def test_ten_megabytes_are_refused_and_the_next_is_served(topics_ready: KafkaSettings, tmp_path) -> None:
    request_id = uuid.uuid4().hex
    huge = json.dumps({"request_id": request_id, "text": "a" * 10_000_000}).encode()
    plain = Producer({"bootstrap.servers": topics_ready.bootstrap_servers, "message.max.bytes": 20_000_000})
    async with dedup_worker(topics_ready, tmp_path), bus(topics_ready) as wire:
        plain.produce(topics_ready.namespace + topics.REQUESTS, huge, key="anything")
        assert plain.flush(30) == 0
        letter = (await eventually(lambda: wire.letters, 30, "the dead letter"))[0]
        assert (letter.code, letter.pointer, letter.truncated) == (ErrorCode.INVALID_REQUEST, "/text", True)
        assert letter.value_bytes == len(huge)
        end = await wire.end(request_id)
        assert end.data.error
        assert end.data.error.code is ErrorCode.INVALID_REQUEST
        assert (await wire.served(text="Good again.")).type == "speech.completed"


async def test_json_from_another_client_needs_neither_id_nor_key(topics_ready: KafkaSettings, tmp_path) -> None:
    # librdkafka partitions by CRC32 where we have murmur2, and a message without key goes anywhere.
    plain = Producer({"bootstrap.servers": topics_ready.bootstrap_servers})
    topic = topics_ready.namespace + topics.REQUESTS
    ids = [f"order-{number}" for number in range(8)]
    async with dedup_worker(topics_ready, tmp_path), bus(topics_ready) as wire:
        for request_id in ids:
            plain.produce(topic, json.dumps({"request_id": request_id, "text": "Same for all"}), key=request_id)
        plain.produce(topic, json.dumps({"text": "Same for all"}))
        assert plain.flush(10) == 0
        await wire.speak(await wire.job())
        ends = await eventually(lambda: wire.completions if len(wire.completions) == 9 else None, 40, "nine ends")
        made = {end.data.request_id for end in ends} - set(ids)
        assert len(made) == 1
        assert made.pop().startswith("req-")
        assert all(end.type == "speech.completed" for end in ends)
        assert len(wire.jobs) == 1
        assert not wire.letters
        assert all(dict(record.headers).get("traceparent") for record in wire.records[topics.COMPLETED])


async def test_a_repeated_id_changes_nothing(topics_ready: KafkaSettings, tmp_path) -> None:
    async with dedup_worker(topics_ready, tmp_path) as worker, bus(topics_ready) as wire:
        request_id = await wire.request(request_id="the-one", text="First come.")
        job = await wire.job()
        for _ in range(3):
            await wire.request(request_id="the-one", text="First come.")
        await wire.request(request_id="the-one", text="Something else.")
        await eventually(lambda: wire.letters, 40, "the conflict")
        assert wire.letters[0].code is ErrorCode.REQUEST_CONFLICT
        await wire.speak(job)
        assert (await wire.end(request_id)).type == "speech.completed"
        await wire.request(request_id="the-one", text="First come.")
        # What follows on the same partition was read after the repeat.
        await wire.request(request_id="the-one", text="Something else again.")
        await eventually(lambda: len(wire.letters) == 2, 40, "the second conflict")
        assert len(wire.ends_of(request_id)) == 1
        assert len(wire.jobs) == 1
        assert (await worker.get("/requests/the-one/"))[1]["state"] == "completed"


@pytest.mark.parametrize("same_partition", [True, False])
async def test_a_bad_message_never_ends_another_message_s_request(
    topics_ready: KafkaSettings, tmp_path, same_partition: bool
) -> None:
    async with dedup_worker(topics_ready, tmp_path), bus(topics_ready) as wire:
        request_id = await wire.request(text="Mine.")
        job = await wire.job()
        bad = json.dumps({"request_id": request_id, "text": ""}).encode()
        await _publish(wire, bad, request_id.encode() if same_partition else b"elsewhere")
        await eventually(lambda: wire.letters, 40, "the dead letter")
        await wire.speak(job)
        assert (await wire.end(request_id)).type == "speech.completed"
        assert len(wire.ends_of(request_id)) == 1


async def test_a_huge_key_or_huge_headers_end_their_own_request_and_nothing_else(
    topics_ready: KafkaSettings, tmp_path: Path
) -> None:
    large = 4 * 1024 * 1024
    async with (
        dedup_worker(topics_ready, tmp_path),
        bus(topics_ready) as wire,
        bus_producer(topics_ready, client_id="large", max_request_bytes=large) as producer,
    ):
        headers = (("x", b"x" * 2_000_000),)
        await producer.deliver(topics.REQUESTS, Message(b"k", b'{"request_id": "headers", "text": "Hi"}', headers))
        await producer.deliver(topics.REQUESTS, Message(b"k" * 1_200_000, b"{broken", ()))
        await producer.deliver(topics.REQUESTS, Message(b"k" * 1_200_000, b'{"request_id": "key", "text": "Hi"}', ()))
        assert (await wire.end("headers")).type == "speech.failed"
        await eventually(lambda: len(wire.letters) == 2, 30, "two dead letters")
        assert {letter.code for letter in wire.letters} == {ErrorCode.INVALID_REQUEST}
        await wire.speak(await wire.job())
        assert (await wire.end("key")).type == "speech.completed"
