"""Reads chunks, take ends and transcode requests from the bus and sees each record to its end."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from infra import metrics as common
from infra.kafka.clients import BusProducer
from infra.kafka.dead_letters import send_dead_letter
from infra.kafka.work import WorkConsumer
from infra.logging import get_logger, trace_id
from schemas import topics
from schemas.audio import AudioChunk, TakeAbandoned, TakeFinished
from schemas.codec import Context, DecodeError, context_of, decode, decode_chunk, event_type
from schemas.codes import ErrorCode
from schemas.jobs import TranscodeRequested
from schemas.outcomes import RenditionStored, SynthesisFailed
from uploader import metrics
from uploader.assembly import Assembly, ChunkVerdict, EndedTake, RecordPosition, Take
from uploader.cache import RenditionCache
from uploader.hands import Hands
from uploader.multipart import MultipartUploader
from uploader.outcomes import STAGE, OutcomePublisher
from uploader.patience import delays
from uploader.settings import UploaderFragment
from uploader.spool import Spool, SpoolError
from uploader.storage_state import StorageState
from uploader.takes import TakeStorer
from uploader.transcodes import Transcoder

_log = get_logger(__name__)
_BATCH = 200  # records; about 10 MB of audio
TOPICS = (topics.AUDIO, topics.TRANSCODES)


def paused_topics(*, storage_down: bool, in_hand: int, most_in_hand: int, spool_full: bool) -> frozenset[str]:
    """What must not be read now. A full spool pauses audio only while something is in hand that will make room."""
    if storage_down or in_hand >= most_in_hand:
        return frozenset(TOPICS)
    return frozenset({topics.AUDIO}) if spool_full and in_hand else frozenset()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the intake works with."""

    settings: UploaderFragment
    spool: Spool
    hands: Hands
    takes: TakeStorer
    transcoder: Transcoder
    outcomes: OutcomePublisher
    cache: RenditionCache
    storage: StorageState
    producer: BusProducer
    multipart: MultipartUploader


class Intake:
    """One member of the group `voxbus.upload`."""

    def __init__(self, work: WorkConsumer, parts: Parts) -> None:
        self._work = work
        self._parts = parts
        self._assembly = Assembly()
        self._paused: frozenset[str] = frozenset()
        self._generation = 0
        parts.hands.forget = self._forget
        parts.hands.begin = self._begin

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            self._regulate()
            readable = [topic for topic in TOPICS if topic not in self._paused]
            records = await self._work.fetch(max_records=_BATCH, topics=readable)
            generation = self._generation
            for record in records:
                # After a rebalance everything unfinished comes again from the committed offset, in order. What is left
                # of this batch would stand there without what came before it.
                if generation != self._generation:
                    break
                await self._take_in(record)
            self._drop_stale()
            self._show()

    async def _take_in(self, record: ConsumerRecord) -> None:
        topic = self._work.topic_of(record)
        kind = event_type(record.headers)
        try:
            if kind == AudioChunk.ce_type:
                await self._chunk(record, decode_chunk(record.key, record.value, record.headers))
            elif kind == TakeFinished.ce_type:
                self._finished(record, decode(TakeFinished, record.value))
            elif kind == TakeAbandoned.ce_type:
                self._abandoned(record, decode(TakeAbandoned, record.value))
            elif kind == TranscodeRequested.ce_type or (kind is None and topic == topics.TRANSCODES):
                self._transcode(record, decode(TranscodeRequested, record.value))
            else:
                raise DecodeError("no event of this topic")
        except DecodeError as error:
            await self._dead_letter(record, topic, error)

    async def _chunk(self, record: ConsumerRecord, chunk: AudioChunk) -> None:
        verdict = self._assembly.chunk(_position(record), chunk, now=time.monotonic())
        if verdict is ChunkVerdict.LATE:
            self._end_records([_position(record)])
        elif verdict is ChunkVerdict.KEEP:
            try:
                await asyncio.to_thread(self._parts.spool.add, chunk.take_id, chunk.index, chunk.pcm)
            except SpoolError as error:
                self._assembly.spoil(error.take_id, str(error))
            if not self._assembly.is_growing(chunk.take_id):  # its partition went away meanwhile
                self._parts.spool.discard(chunk.take_id)

    def _finished(self, record: ConsumerRecord, event: TakeFinished) -> None:
        ended = self._assembly.finished(_position(record), event, now=time.monotonic())
        if ended is not None:
            work = self._settle_take(ended, _context(record))
            self._parts.hands.take_up(_partition(record), event.job.fingerprint, work)
        elif not self._assembly.is_in_hand(event.take_id):
            self._end_records([_position(record)])

    def _abandoned(self, record: ConsumerRecord, event: TakeAbandoned) -> None:
        take = self._assembly.abandoned(event.take_id)
        if take is not None:
            self._let_go(take, "abandoned")
        self._end_records([_position(record)])

    def _transcode(self, record: ConsumerRecord, request: TranscodeRequested) -> None:
        work = self._settle_transcode(_position(record), request, _context(record))
        self._parts.hands.take_up(_partition(record), request.fingerprint, work)

    async def _settle_take(self, ended: EndedTake, context: Context) -> None:
        started = time.monotonic()
        outcome: RenditionStored | SynthesisFailed
        try:
            outcome = await self._parts.takes.outcome_of(ended, context)
        except Exception:
            # Nobody foresaw it; whoever waits is told all the same, and the partition goes on.
            _log.exception("take failed unexpectedly", take_id=ended.take.take_id, job_id=ended.take.job_id)
            outcome = _unforeseen(ended.event.job.fingerprint, ended.event.job.job_id)
        await self._tell(outcome, context)
        stored = isinstance(outcome, RenditionStored)
        settled, *superseded = self._assembly.settled(ended.take, stored=stored)
        self._let_go(settled, "stored" if stored else "failed")
        for take in superseded:
            self._let_go(take, "superseded")
        common.HANDLING.labels(STAGE, topics.AUDIO).observe(time.monotonic() - started)

    async def _settle_transcode(self, position: RecordPosition, request: TranscodeRequested, context: Context) -> None:
        started = time.monotonic()
        outcome: RenditionStored | SynthesisFailed
        try:
            outcome = await self._parts.transcoder.outcome_of(request, context)
        except Exception:
            _log.exception("transcode failed unexpectedly", job_id=request.job_id)
            outcome = _unforeseen(request.fingerprint, request.job_id).model_copy(update={"formats": request.formats})
        await self._tell(outcome, context)
        self._end_records([position])
        common.MESSAGES.labels(STAGE, topics.TRANSCODES, _result(outcome)).inc()
        common.HANDLING.labels(STAGE, topics.TRANSCODES).observe(time.monotonic() - started)

    async def _tell(self, outcome: RenditionStored | SynthesisFailed, context: Context) -> None:
        log = _log.bind(fingerprint=outcome.fingerprint, job_id=outcome.job_id, trace_id=trace_id(context.traceparent))
        if isinstance(outcome, RenditionStored):
            await self._parts.cache.write(outcome)
            log.info(
                "stored",
                take_id=outcome.take_id,
                formats=[each.format for each in outcome.renditions],
                duration_s=outcome.duration_s,
                upload_ms=outcome.upload_ms,
            )
        else:
            log.warning("failed", code=outcome.code, reason=outcome.message)
        await self._parts.outcomes.end(outcome, context)

    async def _dead_letter(self, record: ConsumerRecord, topic: str, error: DecodeError) -> None:
        for delay in delays():
            try:
                await send_dead_letter(
                    self._parts.producer,
                    record,
                    ErrorCode.INVALID_REQUEST,
                    str(error),
                    stage=STAGE,
                    topic=topic,
                    pointer=error.pointer,
                )
                break
            except KafkaError:
                await asyncio.sleep(delay)
        self._end_records([_position(record)])
        common.MESSAGES.labels(STAGE, topic, "dead_letter").inc()

    def _regulate(self) -> None:
        parts = self._parts
        while parts.spool.full and not parts.hands and (take := self._assembly.idlest()) is not None:
            self._let_go(take, "no_room")
        wanted = paused_topics(
            storage_down=parts.storage.down,
            in_hand=len(parts.hands),
            most_in_hand=parts.settings.concurrency + parts.settings.waiting,
            spool_full=parts.spool.full,
        )
        if self._paused - wanted:
            self._assembly.heard_all(time.monotonic())
        self._paused = wanted

    def _drop_stale(self) -> None:
        if topics.AUDIO not in self._paused:
            for take in self._assembly.stale(now=time.monotonic(), after_s=self._parts.settings.spool.stale_after_s):
                self._let_go(take, "stale")

    def _let_go(self, take: Take, result: str) -> None:
        self._parts.spool.discard(take.take_id)
        self._end_records(take.positions)
        metrics.TAKES.labels(result).inc()
        common.MESSAGES.labels(STAGE, topics.AUDIO, result).inc(len(take.positions))
        if result not in {"stored", "failed"}:
            _log.info("take let go", result=result, take_id=take.take_id, job_id=take.job_id)

    def _end_records(self, positions: Iterable[RecordPosition]) -> None:
        for position in positions:
            self._work.finish(position)

    def _forget(self, partitions: frozenset[TopicPartition]) -> None:
        for take in self._assembly.lost(partitions):
            self._parts.spool.discard(take.take_id)

    def _begin(self) -> None:
        self._generation += 1
        self._forget(frozenset(self._assembly.partitions()))

    def _show(self) -> None:
        metrics.SPOOL_BYTES.labels("memory").set(self._parts.spool.memory_bytes)
        metrics.SPOOL_BYTES.labels("disk").set(self._parts.spool.disk_bytes)
        metrics.GROWING_TAKES.set(len(self._assembly))


def _position(record: ConsumerRecord) -> RecordPosition:
    return RecordPosition(record.topic, record.partition, record.offset)


def _partition(record: ConsumerRecord) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


def _context(record: ConsumerRecord) -> Context:
    return Context(context_of(record.headers).traceparent)


def _result(outcome: RenditionStored | SynthesisFailed) -> str:
    return "stored" if isinstance(outcome, RenditionStored) else "failed"


def _unforeseen(fingerprint: str, job_id: str) -> SynthesisFailed:
    message = "the uploader failed unexpectedly; its log says more"
    return SynthesisFailed(fingerprint=fingerprint, job_id=job_id, code=ErrorCode.INTERNAL, message=message)
