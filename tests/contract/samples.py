"""One full and one bare event of every model on the bus; their wire form is kept in `golden/`."""

from datetime import UTC, datetime

from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.base import Event
from schemas.codes import AudioFormat, ErrorCode, Priority, State
from schemas.completions import (
    AudioInfo,
    CompletionData,
    EngineInfo,
    ErrorInfo,
    RequestCompleted,
    RequestStatus,
    Timings,
)
from schemas.deliveries import DeliveryAttempted, DeliveryState
from schemas.endpoints import EndpointChanged
from schemas.jobs import JobCancelled, SynthesisJob, TranscodeRequested
from schemas.outcomes import RenditionStored, StageProgress, StoredObject, SynthesisFailed
from schemas.requests import CancelAdmitted, CancelRequested, SpeechSpec, Style, SynthesisAdmitted, SynthesisRequested
from schemas.ticks import Ticked

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
FINGERPRINT = "0123456789abcdef" * 4
SHA256 = "fedcba9876543210" * 4
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ENGINE = EngineInfo(name="espeak", revision="1", seed=1_234_567)
SPEC = SpeechSpec(
    text="你好,欢迎致电.",
    voice="female1",
    language="zh",
    dialect="mandarin",
    style=Style(oral=1, laugh=2, break_=3),
    speed=6,
    temperature=0.25,
    top_p=0.75,
    top_k=30,
    seed=1_234_567,
)
MASTER = StoredObject(
    key="audio/01/0123.flac",
    format=AudioFormat.FLAC,
    bytes=20_000,
    sha256=SHA256,
    url="https://cdn.example.com/m.flac",
    sample_rate=24_000,
)
WAV = StoredObject(
    key="audio/01/0123.wav",
    format=AudioFormat.WAV,
    bytes=48_044,
    sha256=SHA256,
    url="https://cdn.example.com/a.wav",
    sample_rate=24_000,
)
AUDIO = AudioInfo(
    url=WAV.url, format=AudioFormat.WAV, bytes=WAV.bytes, sha256=SHA256, duration_s=1.0, sample_rate=24_000
)
JOB = SynthesisJob(
    job_id="job-1",
    fingerprint=FINGERPRINT,
    spec=SPEC,
    formats=(AudioFormat.WAV, AudioFormat.MP3),
    priority=Priority.INTERACTIVE,
    request_id="order-17:3",
    enqueued_at=MOMENT,
    deadline_at=LATER,
    drive=2,
)
ERROR = ErrorInfo(code=ErrorCode.ENGINE_TIMEOUT, message="the engine gave no sound for 30 s", attempts=3)

CHUNK = AudioChunk(
    fingerprint=FINGERPRINT,
    job_id="job-1",
    take_id="01JGFJJZ000000000000000000",
    index=2,
    sample_rate=24_000,
    pcm=bytes(range(8)),
)

FULL: tuple[Event, ...] = (
    SynthesisRequested(
        request_id="order-17:3",
        text="你好，欢迎致电。 Hello!",
        voice="female1",
        language="zh-CN",
        dialect="mandarin",
        style=Style(oral=1, laugh=2, break_=3),
        speed=6,
        temperature=0.25,
        top_p=0.75,
        top_k=30,
        seed=1_234_567,
        format=AudioFormat.MP3,
        priority=Priority.BULK,
        callback_url="https://bot.example.com/hooks/speech?tenant=7",
        expires_in_s=600,
        metadata={"conversation": "c-9", "turn": 4, "数": [1, 2.5, None, True]},
    ),
    SynthesisAdmitted(
        request_id="order-17:3",
        fingerprint=FINGERPRINT,
        spec=SPEC,
        format=AudioFormat.WAV,
        priority=Priority.BULK,
        callback_url="https://bot.example.com/hooks/speech",
        metadata={"turn": 4},
        accepted_at=MOMENT,
        expires_at=LATER,
    ),
    JOB,
    TranscodeRequested(
        job_id="job-2",
        fingerprint=FINGERPRINT,
        master=MASTER,
        formats=(AudioFormat.OPUS,),
        duration_s=1.0,
        sample_rate=24_000,
        engine=ENGINE,
        enqueued_at=MOMENT,
    ),
    TakeFinished(
        take_id=CHUNK.take_id,
        job=JOB,
        chunks=3,
        samples=72_000,
        sample_rate=24_000,
        sha256=SHA256,
        engine=ENGINE,
        truncated=True,
        attempts=2,
        queued_ms=15,
        synthesis_ms=900,
    ),
    TakeAbandoned(take_id=CHUNK.take_id, job_id="job-1", fingerprint=FINGERPRINT, code=ErrorCode.ENGINE_CRASHED),
    RenditionStored(
        fingerprint=FINGERPRINT,
        job_id="job-1",
        take_id=CHUNK.take_id,
        master=MASTER,
        renditions=(WAV,),
        duration_s=1.0,
        sample_rate=24_000,
        engine=ENGINE,
        truncated=True,
        attempts=2,
        queued_ms=15,
        synthesis_ms=900,
        upload_ms=40,
    ),
    StageProgress(fingerprint=FINGERPRINT, job_id="job-1", state=State.SYNTHESIZING, percent=42),
    SynthesisFailed(
        fingerprint=FINGERPRINT,
        job_id="job-1",
        code=ErrorCode.BAD_AUDIO,
        message="silent",
        attempts=3,
        formats=(AudioFormat.OPUS,),
    ),
    RequestStatus(
        request_id="order-17:3",
        state=State.COMPLETED,
        percent=100,
        at=MOMENT,
        fingerprint=FINGERPRINT,
        cached=True,
        audio=AUDIO,
    ),
    RequestCompleted(
        type="speech.completed",
        timestamp=MOMENT,
        data=CompletionData(
            request_id="order-17:3",
            status="completed",
            fingerprint=FINGERPRINT,
            cached=True,
            audio=AUDIO,
            engine=ENGINE,
            timings_ms=Timings(queued=15, synthesis=900, upload=40, total=960),
            metadata={"turn": 4},
        ),
    ),
    DeliveryAttempted(
        request_id="order-17:3",
        webhook_id="msg_1",
        attempt=2,
        state=DeliveryState.RETRYING,
        at=MOMENT,
        host="bot.example.com:443",
        endpoint="crm",
        http_status=503,
        latency_ms=120,
        error="answered 503",
        next_attempt_at=LATER,
    ),
    EndpointChanged(name="crm", disabled=True, reason="by command", failing_since=MOMENT, at=LATER),
    Ticked(partition=3, at=MOMENT),
    CancelRequested(request_id="order-17:3"),
    CancelAdmitted(request_id="order-17:3", fingerprint=FINGERPRINT),
    JobCancelled(job_id="job-1", fingerprint=FINGERPRINT),
)

BARE: tuple[Event, ...] = (
    SynthesisRequested(text="Hello"),
    SynthesisAdmitted(
        request_id="r",
        fingerprint=FINGERPRINT,
        spec=SpeechSpec(text="Hello", voice="female1", language="en", dialect="english"),
        format=AudioFormat.WAV,
        priority=Priority.INTERACTIVE,
        accepted_at=MOMENT,
        expires_at=LATER,
    ),
    JOB.model_copy(update={"deadline_at": None, "drive": 1, "formats": (AudioFormat.WAV,)}),
    TakeFinished(take_id="t", job=JOB, chunks=0, samples=0, sample_rate=24_000, sha256=SHA256, engine=ENGINE),
    RenditionStored(
        fingerprint=FINGERPRINT,
        job_id="job-2",
        take_id="",
        master=MASTER,
        renditions=(),
        duration_s=1.0,
        sample_rate=24_000,
        engine=ENGINE,
    ),
    SynthesisFailed(fingerprint=FINGERPRINT, job_id="job-1", code=ErrorCode.INTERNAL, message="unexpected"),
    RequestStatus(request_id="r", state=State.FAILED, percent=100, at=MOMENT, error=ERROR),
    RequestCompleted(
        type="speech.failed",
        timestamp=MOMENT,
        data=CompletionData(request_id="r", status="failed", error=ERROR),
    ),
    DeliveryAttempted(
        request_id="r", webhook_id="msg_1", attempt=1, state=DeliveryState.DELIVERED, at=MOMENT, host="localhost:80"
    ),
    EndpointChanged(name="crm", at=MOMENT),
)
