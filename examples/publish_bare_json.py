"""Publishes a request as bare JSON, with no voxbus code: any Kafka client in any language can do the same.

    voxbus up                                       # in another terminal
    python examples/publish_bare_json.py "你好，世界" --bootstrap 127.0.0.1:9092

Without --bootstrap the address is read from .voxbus/endpoints.json. Needs: pip install confluent-kafka
"""

import argparse
import json
import sys
import uuid
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

ENDPOINTS = Path(".voxbus/endpoints.json")


def main() -> int:
    """Publish one message and wait for the broker's acknowledgement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--bootstrap", help="host:port of Kafka")
    parser.add_argument("--topic", default="tts.requests")
    options = parser.parse_args()
    bootstrap = options.bootstrap or (json.loads(ENDPOINTS.read_text())["kafka"] if ENDPOINTS.exists() else None)
    if bootstrap is None:
        print(f"say --bootstrap HOST:PORT, or run `voxbus up` here ({ENDPOINTS} is missing)", file=sys.stderr)
        return 1

    # An id of your own makes publishing again harmless, and lets you ask: voxbus status REQUEST_ID
    request = {"request_id": str(uuid.uuid4()), "text": options.text}
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 10_000, "log_level": 0})
    producer.produce(options.topic, value=json.dumps(request).encode(), on_delivery=on_delivery)
    unsent = producer.flush(15)
    if failures or unsent:
        print(f"not delivered to {bootstrap}: {failures[0].str() if failures else 'no answer'}", file=sys.stderr)
        return 1
    print(request["request_id"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
