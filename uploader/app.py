"""Composition root of the uploader: wires bus, spool, encoders, object storage, CDN and cache together."""

import asyncio
from contextlib import AsyncExitStack

from infra.health import Readiness, health_server
from infra.kafka.clients import BusProducer, bus_producer
from infra.kafka.topics import ensure_topics, require_topics
from infra.kafka.work import WorkConsumer, work_consumer
from infra.lifecycle import run_until_stopped
from infra.logging import get_logger
from uploader.cache import rendition_cache
from uploader.cdn import cdn_refresher
from uploader.hands import Hands
from uploader.intake import TOPICS, Intake, Parts
from uploader.library import Library
from uploader.masters import MasterReader
from uploader.multipart import MultipartUploader
from uploader.object_store import ObjectStore, StorageUnavailableError, object_store
from uploader.outcomes import STAGE, OutcomePublisher
from uploader.pool import pool
from uploader.renditions import RenditionMaker
from uploader.settings import UploaderSettings
from uploader.spool import Spool
from uploader.storage_state import StorageState
from uploader.takes import TakeStorer
from uploader.transcodes import Transcoder

_log = get_logger(__name__)
GROUP = "voxbus.upload"
_HOUSEKEEPING_S = 86_400.0


async def run(settings: UploaderSettings, stop: asyncio.Event) -> None:
    """Run the uploader until `stop` is set, then drain.

    Raises:
        ServerUnavailableError: the bus or object storage does not answer at start.
        UserError: the bucket or a topic is missing.
        TaskFailedError: a part of it ended although it should have run on.
    """
    readiness = Readiness("bus", "storage")
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(health_server(settings.health, readiness))
        _log.info("health", host=settings.health.host, port=port)
        store = await stack.enter_async_context(object_store(settings.s3, settings.uploader))
        require_topics(await ensure_topics(settings.kafka))
        producer = await stack.enter_async_context(bus_producer(settings.kafka, client_id=f"voxbus-{STAGE}"))
        storage = StorageState(readiness)
        hands = Hands(settings.uploader.concurrency)
        parts = await _parts(settings, stack, store, storage, producer, hands)
        work = await stack.enter_async_context(
            work_consumer(
                settings.kafka,
                topics=TOPICS,
                group=GROUP,
                stage=STAGE,
                hooks=hands,
                drain_s=min(settings.drain_timeout_s, settings.kafka.rebalance_timeout_ms / 1000 * 0.8),
            )
        )
        intake = Intake(work, parts)
        await run_until_stopped(
            stop,
            intake=intake.run(),
            hands=hands.failure(),
            ready=_ready(work, readiness),
            probe=storage.probe(store),
            housekeeping=_abort_abandoned(parts.multipart, settings.uploader.abandoned_upload_age_s),
        )
        readiness.unmet("bus", "stopping")


async def _parts(
    settings: UploaderSettings,
    stack: AsyncExitStack,
    store: ObjectStore,
    storage: StorageState,
    producer: BusProducer,
    hands: Hands,
) -> Parts:
    own = settings.uploader
    folder = own.spool.folder
    encoders = await stack.enter_async_context(pool(own.encoders))
    cdn = await stack.enter_async_context(cdn_refresher(own.cdn))
    cache = await stack.enter_async_context(rendition_cache(settings.redis, url_lifetime_s=store.url_lifetime_s))
    multipart = MultipartUploader(store, part_bytes=own.part_bytes, state=storage)
    library = Library(store, multipart, storage, part_bytes=own.part_bytes)
    maker = RenditionMaker(library, encoders, folder=folder)
    masters = MasterReader(library, encoders, folder=folder)
    outcomes = OutcomePublisher(producer)
    spool = Spool(own.spool)
    stack.callback(spool.close)
    return Parts(
        settings=own,
        spool=spool,
        hands=hands,
        takes=TakeStorer(spool, encoders, library, maker, masters, cdn, outcomes, own.storage_patience_s),
        transcoder=Transcoder(library, maker, masters, cdn, outcomes, own.storage_patience_s),
        outcomes=outcomes,
        cache=cache,
        storage=storage,
        producer=producer,
        multipart=multipart,
    )


async def _abort_abandoned(multipart: MultipartUploader, older_than_s: float) -> None:
    """At once and then daily, for other uploaders may be killed while this one runs for months."""
    while True:
        try:
            aborted = await multipart.abort_abandoned(older_than_s)
            if aborted:
                _log.info("abandoned multipart uploads aborted", uploads=aborted)
        except StorageUnavailableError as error:
            # Housekeeping: the next time tries again.
            _log.warning("abandoned uploads not looked for", error=str(error))
        await asyncio.sleep(_HOUSEKEEPING_S)


async def _ready(work: WorkConsumer, readiness: Readiness) -> None:
    await work.wait_assigned()
    readiness.met("bus")
    _log.info("ready", partitions=len(work.held))
    await asyncio.Event().wait()  # a background task lasts as long as the app
