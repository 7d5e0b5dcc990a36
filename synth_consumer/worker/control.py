"""Word from dedup that a job is not wanted any more, for every worker: a reader without a group."""

import asyncio

from aiokafka.errors import KafkaError

from infra.errors import UserError
from infra.kafka.clients import new_consumer, start_client
from infra.logging import get_logger
from infra.settings import KafkaSettings
from schemas import topics
from schemas.codec import DecodeError, decode
from schemas.jobs import JobCancelled
from synth_consumer.worker.job_book import JobBook

_log = get_logger(__name__)
_AGAIN_S = 1.0


async def obey_cancellations(settings: KafkaSettings, book: JobBook) -> None:
    """Read `tts.control` from its beginning, for jobs that are still to come; runs until cancelled.

    Without the bus there is nothing to obey: reading begins again when it is back.
    """
    while True:
        try:
            await _read(settings, book)
        except (KafkaError, UserError, OSError) as error:
            _log.warning("cancellations are not heard", error=type(error).__name__)
        await asyncio.sleep(_AGAIN_S)


async def _read(settings: KafkaSettings, book: JobBook) -> None:
    consumer = new_consumer(settings, topics.CONTROL, group=None, client_id="voxbus-synth-control")
    try:
        await start_client(consumer, settings)
        async for record in consumer:
            try:
                book.cancel(decode(JobCancelled, record.value).job_id)
            except DecodeError:
                _log.warning("not readable", topic=topics.CONTROL, offset=record.offset)
    finally:
        await consumer.stop()
