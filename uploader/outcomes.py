"""What the uploader tells dedup."""

import asyncio
from typing import Any

from aiokafka.errors import KafkaError

from infra.kafka.clients import BusProducer
from infra.logging import get_logger
from schemas import topics
from schemas.codec import Context, encode
from schemas.codes import PERCENT_AT, State
from schemas.outcomes import RenditionStored, StageProgress, SynthesisFailed
from uploader.patience import delays

_log = get_logger(__name__)
STAGE = "uploader"
SOURCE = f"voxbus/{STAGE}"


class OutcomePublisher:
    """Publishes on `tts.outcomes`."""

    def __init__(self, producer: BusProducer) -> None:
        self._producer = producer

    async def progress(self, fingerprint: str, job_id: str, state: State, context: Context) -> None:
        """Tell that a state was reached; not worth waiting for, nor a failure."""
        event = StageProgress(fingerprint=fingerprint, job_id=job_id, state=state, percent=PERCENT_AT[state])
        try:
            future = await self._producer.send(topics.OUTCOMES, encode(event, source=SOURCE, context=context))
        except KafkaError:
            return
        future.add_done_callback(_passed_over)

    async def end(self, outcome: RenditionStored | SynthesisFailed, context: Context) -> None:
        """Tell the end; returns when the broker has it, however long that takes: offsets are finished after it."""
        message = encode(outcome, source=SOURCE, context=context)
        for delay in delays():
            try:
                await self._producer.deliver(topics.OUTCOMES, message)
            except KafkaError as error:
                _log.warning("outcome not published yet", error=type(error).__name__, job_id=outcome.job_id)
                await asyncio.sleep(delay)
            else:
                return


def _passed_over(future: "asyncio.Future[Any]") -> None:
    # Asked for its exception, asyncio does not complain that nobody did.
    if not future.cancelled():
        future.exception()
