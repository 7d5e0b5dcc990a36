"""The notifier's own metrics. No label names a host: receivers are chosen by strangers, labels must be few."""

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter("voxbus_webhook_attempts_total", "Attempts to deliver a webhook.", ["result"])
ATTEMPT_SECONDS = Histogram(
    "voxbus_webhook_attempt_seconds",
    "Duration of an attempt.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
DELIVERIES = Counter("voxbus_webhooks_total", "Webhooks that came to an end.", ["state"])
DELIVERY_SECONDS = Histogram(
    "voxbus_webhook_delivery_seconds",
    "From the completion to its successful delivery.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 300, 3_600, 36_000, 360_000),
)
PUT_OFF = Counter("voxbus_webhooks_put_off_total", "Deliveries put off without an attempt.", ["reason"])
LOOKUPS_REFUSED = Counter(
    "voxbus_webhook_lookups_refused_total", "Names not looked up, since too many lookups hang.", ["reason"]
)
REPEATED = Counter("voxbus_webhooks_repeated_total", "Records that came again and were known to be settled.")
WAITING = Gauge("voxbus_webhooks_waiting", "Deliveries of a retry tier that are held until due.", ["tier"])
QUEUED = Gauge("voxbus_webhooks_queued", "Deliveries in hand that wait for a connection.")
RUNNING = Gauge("voxbus_webhooks_running", "Attempts running.")
BREAKERS = Gauge("voxbus_webhook_endpoints", "Known endpoints by the state of their circuit.", ["state"])
