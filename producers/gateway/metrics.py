"""Figures of the gateway. Routes are patterns, never paths."""

from prometheus_client import Counter, Gauge, Histogram

from infra.metrics import LATENCY_BUCKETS

REQUESTS = Counter("voxbus_gateway_requests_total", "Answers of the gateway.", ["route", "status"])
LATENCY = Histogram("voxbus_gateway_seconds", "Time to the answer's head.", ["route"], buckets=LATENCY_BUCKETS)
SPEECH = Counter("voxbus_gateway_speech_total", "Speech requests by how they were answered.", ["answer"])
LISTENERS = Gauge("voxbus_gateway_listeners", "Open streams and event feeds.", ["kind"])
REDIS_MISSES = Counter("voxbus_gateway_redis_unanswered_total", "Redis commands without an answer in time.")
FIRST_AUDIO = Histogram(
    "voxbus_gateway_first_audio_seconds", "From a streaming request to its first audio.", buckets=LATENCY_BUCKETS
)


def answers() -> dict[str, int]:
    """How speech requests were answered by this process."""
    samples = (sample for family in SPEECH.collect() for sample in family.samples if sample.name.endswith("_total"))
    return {sample.labels["answer"]: int(sample.value) for sample in samples}
