"""Publishes what follows from an attempt, and only then calls the delivery's record finished.

The order of the messages is what survives a crash between them: the waiting record or the dead letter first, the
attempt's own event second, the offset last. A crash in between repeats an attempt; it never loses one. The event's id
names the attempt, so that whoever reads the record again knows it is settled (see `ledger`).
"""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta

from aiokafka.errors import KafkaError

from infra import metrics as common_metrics
from infra.kafka.clients import BusProducer
from infra.lifecycle import Deadline
from infra.logging import get_logger, trace_id
from notifier import metrics
from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.delivery_log import event_id
from notifier.directory import Directory
from notifier.endpoint_states import message_of
from notifier.errand import Errand, Return
from notifier.ledger import Ledger, Settled
from notifier.retry import RetryDecision, RetryPolicy, decide
from schemas import topics
from schemas.base import utc_now
from schemas.codec import Context, Message, encode
from schemas.codes import ErrorCode
from schemas.dead_letters import dead_letter
from schemas.deliveries import DeliveryAttempted, DeliveryState

STAGE = "notify"
_SOURCE = "voxbus/notifier"
# A bus that restarts is back by then; the client's own retries come before.
_PATIENCE_S = 120.0
_PAUSE_S = 1.0

_log = get_logger(__name__)


class BusSettlement:
    """Settles errands on the bus."""

    def __init__(
        self,
        producer: BusProducer,
        policy: RetryPolicy,
        ledger: Ledger,
        directory: Directory,
        *,
        give_up_after_s: float,
    ) -> None:
        """Wire it.

        Args:
            producer: where to publish.
            policy: the schedule of attempts.
            ledger: is told what is settled.
            directory: is told how named endpoints do.
            give_up_after_s: age of a delivery past which it is not put off any more.
        """
        self._producer = producer
        self._policy = policy
        self._ledger = ledger
        self._directory = directory
        self._give_up_after_s = give_up_after_s

    async def settle(self, errand: Errand, endpoint: str, result: AttemptResult) -> None:
        """Publish the outcome of an attempt."""
        delivery = errand.delivery.attempted()
        decision = decide(result, delivery.progress.attempts, self._policy, random.random())  # noqa: S311  # jitter
        now = utc_now()
        event = _event(delivery, endpoint, result, decision)
        if decision.delay_s is not None:
            now_ms = _ms(now.timestamp())
            await self._publish(delivery.waiting(now_ms, now_ms + _ms(decision.delay_s)))
        elif decision.state is DeliveryState.DEAD_LETTERED:
            await self._dead_letter(delivery, decision.reason)
        else:
            metrics.DELIVERY_SECONDS.observe(max(0.0, now.timestamp() - delivery.progress.first_ms / 1000))
        if delivery.endpoint is not None:
            await self._judge(delivery.endpoint, result)
        await self._announce(errand, event)
        self._log(delivery, result, decision)
        errand.done()

    async def give_back(self, batch: Sequence[Return]) -> None:
        """Let deliveries wait without an attempt; one that waited past the whole schedule ends instead."""
        now_ms = _ms(utc_now().timestamp())
        over = [one for one in batch if one.begun and self._is_over(one.errand.delivery, now_ms)]
        back = [one for one in batch if one not in over] if over else batch
        for one in back:
            if one.begun:
                # Before its record waits: read again at once, that would seem a copy of what is still in hand.
                self._ledger.release(one.errand.delivery.id, one.errand.delivery.attempt)
        await self._publish(*(one.errand.delivery.waiting(now_ms, one.due_ms, for_room=one.for_room) for one in back))
        for one in back:
            one.errand.done()
        await asyncio.gather(*(self._give_up(one.errand) for one in over))

    def _is_over(self, delivery: Delivery, now_ms: int) -> bool:
        return (now_ms - delivery.progress.first_ms) / 1000 > self._give_up_after_s

    async def _give_up(self, errand: Errand) -> None:
        reason = f"its endpoint was not to be reached for {self._give_up_after_s:.0f} s"
        # Counted as the last attempt: it was due, and its endpoint was known not to answer.
        last, ended = errand.delivery.attempted(), RetryDecision(DeliveryState.DEAD_LETTERED, reason)
        await self._dead_letter(last, reason)
        await self._announce(errand, _event(last, "", AttemptResult(Answer.CONNECTION), ended))
        errand.done()

    async def _judge(self, name: str, result: AttemptResult) -> None:
        """Learn how a named endpoint does, and tell the others what changes by it."""
        change = self._directory.judge(name, result, utc_now())
        if change is None:
            return
        await self._publish((topics.ENDPOINTS, message_of(change)))
        if change.disabled:
            _log.error(
                "endpoint disabled",
                endpoint=name,
                reason=change.reason,
                next_step=f"voxbus webhooks enable {name}",
            )
        else:
            _log.warning("endpoint failing" if change.failing_since else "endpoint works again", endpoint=name)

    async def _announce(self, errand: Errand, event: DeliveryAttempted) -> None:
        delivery = errand.delivery
        message = encode(
            event,
            source=_SOURCE,
            context=Context(delivery.traceparent),
            event_id=event_id(delivery.id, event.attempt),
        )
        await self._publish((topics.DELIVERIES, message))
        ended = event.state is not DeliveryState.RETRYING
        self._ledger.settle(Settled(delivery.id, event.attempt, ended))
        if ended:
            metrics.DELIVERIES.labels(event.state).inc()

    async def _dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Put the completion as it stood on `tts.completed` on the dead-letter topic; replayed, it begins anew."""
        letter = dead_letter(
            ErrorCode.INTERNAL,
            f"webhook not delivered: {reason}",
            stage=STAGE,
            topic=topics.COMPLETED,
            partition=delivery.progress.partition,
            offset=delivery.progress.offset,
        )
        whole = delivery.completion()
        await self._publish((topics.DEAD_LETTERS, letter.message_of(whole.key, whole.value, whole.headers)))
        common_metrics.DEAD_LETTERED.labels(STAGE, ErrorCode.INTERNAL).inc()
        _log.warning("webhook dead-lettered", request_id=delivery.request_id, reason=reason)

    async def _publish(self, *messages: tuple[str, Message]) -> None:
        """Publish to topics, with patience: giving up means that what was answered is asked for again.

        Raises:
            KafkaError: the bus took nothing for minutes.
        """
        patience = Deadline(_PATIENCE_S)
        while True:
            try:
                await self._producer.all_acked([await self._producer.send(*message) for message in messages])
                return
            except KafkaError as error:
                if patience.passed:
                    raise
                names = sorted({topic for topic, _ in messages})
                _log.warning("bus does not take messages", topics=names, error=type(error).__name__)
                await asyncio.sleep(_PAUSE_S)

    @staticmethod
    def _log(delivery: Delivery, result: AttemptResult, decision: RetryDecision) -> None:
        log = _log.debug if decision.state is DeliveryState.DELIVERED else _log.info
        log(
            "webhook attempted",
            request_id=delivery.request_id,
            webhook_id=delivery.webhook_id,
            trace_id=trace_id(delivery.traceparent),
            attempt=delivery.progress.attempts,
            state=decision.state,
            status=result.status,
            error=result.error,
            latency_ms=round(result.latency_s * 1000),
            next_in_s=decision.delay_s,
        )


def _event(delivery: Delivery, endpoint: str, result: AttemptResult, decision: RetryDecision) -> DeliveryAttempted:
    now = utc_now()
    return DeliveryAttempted(
        request_id=delivery.request_id,
        webhook_id=delivery.webhook_id,
        attempt=delivery.progress.attempts,
        state=decision.state,
        at=now,
        host=endpoint,
        endpoint=delivery.endpoint,
        http_status=result.status,
        latency_ms=round(result.latency_s * 1000),
        error=decision.reason or result.error,
        next_attempt_at=now + timedelta(seconds=decision.delay_s) if decision.delay_s is not None else None,
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
