"""Every topic: its name, what keys it, what stands on it, how long it is kept.

Names are without the installation's namespace; `KafkaSettings.namespace` goes before them.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.base import Event
from schemas.completions import RequestCompleted, RequestStatus
from schemas.deliveries import DeliveryAttempted
from schemas.endpoints import EndpointChanged
from schemas.jobs import JobCancelled, SynthesisJob, TranscodeRequested
from schemas.outcomes import RenditionStored, StageProgress, SynthesisFailed
from schemas.requests import CancelAdmitted, CancelRequested, SynthesisAdmitted, SynthesisRequested
from schemas.ticks import Ticked

REQUESTS = "tts.requests"
ADMITTED = "tts.admitted"
JOBS_INTERACTIVE = "tts.jobs.interactive"
JOBS_BULK = "tts.jobs.bulk"
AUDIO = "tts.audio"
TRANSCODES = "tts.transcodes"
OUTCOMES = "tts.outcomes"
STATUS = "tts.status"
COMPLETED = "tts.completed"
DELIVERIES = "tts.deliveries"
# Waiting rooms for webhooks, from the shortest stay to the longest; how long each is, the notifier knows.
DELIVERY_RETRIES = tuple(f"{DELIVERIES}.retry.{tier}" for tier in range(1, 7))
ENDPOINTS = "tts.endpoints"
DEAD_LETTERS = "tts.dlq"
TICKS = "tts.ticks"
CONTROL = "tts.control"

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table."""

    name: str
    key: Literal["request_id", "fingerprint", "partition", "endpoint", "any"]
    models: tuple[type[Event] | type[AudioChunk], ...]
    retention_ms: int
    cleanup_policy: Literal["delete", "compact"] = "delete"
    partitions: int | None = None
    """None: as many as the installation's setting, so that tables and their sources agree."""


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(REQUESTS, "any", (SynthesisRequested, CancelRequested), 7 * _DAY_MS),
        Topic(ADMITTED, "fingerprint", (SynthesisAdmitted, CancelAdmitted), _DAY_MS),
        Topic(JOBS_INTERACTIVE, "fingerprint", (SynthesisJob,), _DAY_MS),
        Topic(JOBS_BULK, "fingerprint", (SynthesisJob,), 7 * _DAY_MS),
        # PCM is heavy (48 kB a second of speech) and worthless once uploaded.
        Topic(AUDIO, "fingerprint", (AudioChunk, TakeFinished, TakeAbandoned), 2 * _HOUR_MS),
        Topic(TRANSCODES, "fingerprint", (TranscodeRequested,), _DAY_MS),
        Topic(OUTCOMES, "fingerprint", (RenditionStored, StageProgress, SynthesisFailed), _DAY_MS),
        Topic(STATUS, "request_id", (RequestStatus,), 7 * _DAY_MS),
        Topic(COMPLETED, "request_id", (RequestCompleted,), 7 * _DAY_MS),
        Topic(DELIVERIES, "request_id", (DeliveryAttempted,), 7 * _DAY_MS),
        # One partition each: a retry costs next to nothing, every polled partition something.
        *(Topic(name, "request_id", (RequestCompleted,), 7 * _DAY_MS, partitions=1) for name in DELIVERY_RETRIES),
        # Compacted, so the newest state of each named endpoint stays.
        Topic(ENDPOINTS, "endpoint", (EndpointChanged,), 30 * _DAY_MS, cleanup_policy="compact", partitions=1),
        Topic(DEAD_LETTERS, "any", (), 30 * _DAY_MS),
        Topic(TICKS, "partition", (Ticked,), _HOUR_MS),
        # Every worker reads all of it, without a group.
        Topic(CONTROL, "fingerprint", (JobCancelled,), _HOUR_MS, partitions=1),
    )
}
