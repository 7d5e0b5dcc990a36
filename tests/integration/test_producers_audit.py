"""The audit against a real bus and a real bucket."""

import hashlib
from typing import Any

import pytest
from aiobotocore.session import get_session
from aiokafka import AIOKafkaProducer

from infra.errors import ServerUnavailableError, UserError
from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings, S3Settings
from producers.audit import Finding, ObjectFacts
from producers.audit_cli import audited
from producers.bucket import open_bucket
from producers.connection import ClientSettings
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, Message, encode
from schemas.codes import State
from schemas.completions import CompletionData, RequestCompleted, RequestStatus
from schemas.requests import SynthesisRequested

CONTENT = b"RIFF" * 100


async def _put(settings: S3Settings, key: str, content: bytes) -> None:
    assert settings.secret_access_key is not None
    async with get_session().create_client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key.get_secret_value(),
    ) as client:
        await client.put_object(Bucket=settings.bucket, Key=key, Body=content)


def _end(request_id: str, url: str, *, callback: str | None = None) -> list[tuple[str, Message]]:
    audio: dict[str, Any] = {"url": url, "format": "wav", "bytes": len(CONTENT), "duration_s": 1, "sample_rate": 8_000}
    audio["sha256"] = hashlib.sha256(CONTENT).hexdigest()
    data = CompletionData.model_validate({"request_id": request_id, "status": "completed", "audio": audio})
    completed = RequestCompleted(type="speech.completed", timestamp=utc_now(), data=data)
    status = RequestStatus(request_id=request_id, state=State.COMPLETED, percent=100, at=utc_now())
    context = Context(extensions={"callbackurl": callback} if callback else {})
    return [
        (topics.STATUS, encode(status, source="test")),
        (topics.COMPLETED, encode(completed, source="test", context=context)),
    ]


async def _publish(settings: KafkaSettings, *ends: list[tuple[str, Message]]) -> None:
    async with bus_producer(settings, client_id="test") as producer:
        for end in ends:
            for topic, message in end:
                await producer.deliver(topic, message)


async def test_the_bucket_says_what_lies_there(s3_settings: S3Settings) -> None:
    await _put(s3_settings, "there", CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    async with open_bucket(s3_settings) as bucket:
        assert await bucket.facts(["there", "not there"], read=True) == {
            "there": ObjectFacts(len(CONTENT), digest),
            "not there": None,
        }
        assert await bucket.facts(["there", "not there"], read=False) == {
            "there": ObjectFacts(len(CONTENT), None),
            "not there": None,
        }


async def test_logs_and_bucket_are_held_against_each_other(
    topics_ready: KafkaSettings, s3_settings: S3Settings
) -> None:
    settings = ClientSettings(kafka=topics_ready, s3=s3_settings)
    base = f"{s3_settings.endpoint_url}/{s3_settings.bucket}"
    await _put(s3_settings, "good", CONTENT)
    await _put(s3_settings, "bad", CONTENT[:-1])
    await _publish(topics_ready, _end("r1", f"{base}/good?signed=1"), _end("r2", f"{base}/good"))
    assert (await audited(settings)).good

    lost = [_end("r3", f"{base}/lost"), _end("r4", f"{base}/bad"), _end("r5", "http://elsewhere/x")]
    await _publish(topics_ready, *lost, _end("r6", f"{base}/good", callback="http://127.0.0.1/hook"))
    report = await audited(settings)
    assert report.findings == {
        Finding.OBJECT_MISSING: ["r3", "r5"],
        Finding.OBJECT_DAMAGED: ["r4"],
        Finding.UNDELIVERED: ["r6"],
    }
    assert report.counts["completed"] == 6


async def test_a_published_request_that_nobody_read_is_seen(
    topics_ready: KafkaSettings, s3_settings: S3Settings
) -> None:
    settings = ClientSettings(kafka=topics_ready, s3=s3_settings)
    waiting = SynthesisRequested(request_id="waiting", text="x")
    lost = SynthesisRequested(request_id="lost", text="x", expires_in_s=1)
    long_ago = int(utc_now().timestamp() * 1000) - 3_600_000
    async with AIOKafkaProducer(bootstrap_servers=topics_ready.bootstrap_servers) as producer:
        name = topics_ready.namespace + topics.REQUESTS
        await producer.send_and_wait(name, encode(waiting, source="test").value)
        await producer.send_and_wait(name, encode(lost, source="test").value, timestamp_ms=long_ago)
        await producer.send_and_wait(name, b"{broken", timestamp_ms=long_ago, partition=0)
    report = await audited(settings)
    assert report.open == ("waiting",)
    assert sorted(report.findings) == [Finding.LOST]
    [broken, named] = sorted(report.findings[Finding.LOST], reverse=True)
    assert (named, broken.startswith("tts.requests/0:")) == ("lost", True)


async def test_a_store_that_is_away_or_refuses_is_named(topics_ready: KafkaSettings, s3_settings: S3Settings) -> None:
    await _publish(topics_ready, _end("r1", f"http://x/{s3_settings.bucket}/key"))
    away = s3_settings.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(ServerUnavailableError, match=r"object storage does not answer at http://127\.0\.0\.1:1"):
        await audited(ClientSettings(kafka=topics_ready, s3=away))
    stranger = s3_settings.model_copy(update={"access_key_id": "nobody"})
    with pytest.raises(UserError, match=r"object storage at .* refuses"):
        await audited(ClientSettings(kafka=topics_ready, s3=stranger))
