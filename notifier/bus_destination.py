"""Delivers to a topic instead of an address, for teams that would rather consume."""

import asyncio
import time

from aiokafka.errors import KafkaError

from infra.kafka.clients import BusProducer
from notifier.attempt import Answer, AttemptResult
from notifier.delivery import CALLBACK, ENDPOINT, Delivery
from schemas.codec import Message

# What is voxbus's own affair; and the id, which becomes the delivery's: one for life, so that consumers know repeats.
_LEFT_OUT = {f"ce_{CALLBACK}", f"ce_{ENDPOINT}", "ce_id"}


class BusDestination:
    """Makes attempts on the bus."""

    def __init__(self, producer: BusProducer, timeout_s: float) -> None:
        self._producer = producer
        self._timeout_s = timeout_s

    async def send(self, delivery: Delivery, topic: str) -> AttemptResult:
        """Publish the completion as the CloudEvent it is; every failure is a result."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.deliver(topic, bus_message(delivery))
        except TimeoutError:
            return AttemptResult(Answer.TIMEOUT, time.monotonic() - began, error="the topic took nothing in time")
        except KafkaError as error:
            name = type(error).__name__
            return AttemptResult(Answer.CONNECTION, time.monotonic() - began, error=f"the topic took nothing ({name})")
        return AttemptResult(Answer.SUCCESS, time.monotonic() - began)


def bus_message(delivery: Delivery) -> Message:
    """The record: key and value of the completion, `ce_id` the webhook-id."""
    kept = tuple((name, value) for name, value in delivery.headers if name not in _LEFT_OUT)
    return Message(delivery.request_id.encode(), delivery.body, (("ce_id", delivery.webhook_id.encode()), *kept))
