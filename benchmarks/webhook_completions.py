"""Completions as the dedup app publishes them."""

import asyncio
import time

from infra.kafka.clients import bus_producer
from infra.settings import KafkaSettings
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, Message, encode
from schemas.codes import AudioFormat
from schemas.completions import AudioInfo, CompletionData, EngineInfo, RequestCompleted, Timings

_DIGEST = "5f1d" * 16


def completion(request_id: str, callback: str) -> Message:
    """A completion as the dedup app publishes it, with metadata such as a chatbot sends along: about 1.3 kB."""
    data = CompletionData(
        request_id=request_id,
        status="completed",
        fingerprint=_DIGEST,
        audio=AudioInfo(
            url=f"https://cdn.example.com/speech/renditions/{_DIGEST[:2]}/{_DIGEST}.mp3",
            format=AudioFormat.MP3,
            bytes=48_213,
            sha256=_DIGEST,
            duration_s=6.03,
            sample_rate=24_000,
        ),
        engine=EngineInfo(name="chattts", revision="2026-01", seed=1_234_567),
        timings_ms=Timings(queued=12, synthesis=2_310, upload=85, total=2_440),
        metadata={
            "conversation": request_id,
            "tenant": "example-shop",
            "reply_to": "https://bot.example.com/conversations/replies",
            "text": "您好,您的包裹已经到达配送站,预计今天下午送达。" * 5,
        },
    )
    event = RequestCompleted(type="speech.completed", timestamp=utc_now(), data=data)
    return encode(event, source="voxbus/benchmark", context=Context(extensions={"callbackurl": callback}))


async def publish(kafka: KafkaSettings, request_ids: list[str], callback: str, rate: float = 0.0) -> dict[str, float]:
    """Put completions on the bus, all at once or at a rate; returns when each was sent, in seconds since 1970."""
    sent: dict[str, float] = {}
    async with bus_producer(kafka, client_id="benchmark") as producer:
        futures = []
        for request_id in request_ids:
            sent[request_id] = time.time()
            futures.append(await producer.send(topics.COMPLETED, completion(request_id, callback)))
            if rate:
                await asyncio.sleep(1 / rate)
        await producer.all_acked(futures)
    return sent
