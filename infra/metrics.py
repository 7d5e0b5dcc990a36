"""Prometheus metrics that every stage has; a stage's own stand in the stage.

Label values come from closed lists (stages, codes, formats), never from requests.
"""

from prometheus_client import Counter, Gauge, Histogram

MESSAGES = Counter("voxbus_messages_total", "Messages taken from the bus and finished.", ["stage", "topic", "result"])
DEAD_LETTERED = Counter("voxbus_dead_letters_total", "Messages sent to the dead-letter topic.", ["stage", "code"])
IN_FLIGHT = Gauge("voxbus_in_flight", "Messages taken and not yet finished.", ["stage"])
COMMITTED = Counter("voxbus_commits_total", "Offset commits.", ["stage", "result"])

# Seconds; speech takes from tens of milliseconds (cache) to minutes (long text on a CPU).
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
HANDLING = Histogram(
    "voxbus_handling_seconds", "From taking a message to finishing it.", ["stage", "topic"], buckets=LATENCY_BUCKETS
)
