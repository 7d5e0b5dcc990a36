"""What becomes of an ended take: checked, stored, told. The first complete take of a fingerprint stands."""

import time
from dataclasses import dataclass

from schemas.audio import TakeFinished
from schemas.codec import Context
from schemas.codes import ErrorCode, State
from schemas.outcomes import RenditionStored, SynthesisFailed
from uploader.assembly import EndedTake
from uploader.cdn import CdnRefresher
from uploader.checks import fault_of, measure
from uploader.keys import MASTER, SynthesisFacts
from uploader.library import Library
from uploader.masters import MasterMissingError, MasterReader
from uploader.object_store import StorageUnavailableError
from uploader.outcomes import OutcomePublisher
from uploader.patience import Patience
from uploader.pool import Pool
from uploader.renditions import Files, RenditionMaker
from uploader.spool import Samples, Spool, SpoolError
from uploader.transcoding import TranscodeError, pcm_sha256


class UnusableTakeError(Exception):
    """The take cannot be stored."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class TakeStorer:
    """Turns an ended take into its outcome."""

    spool: Spool
    pool: Pool
    library: Library
    maker: RenditionMaker
    masters: MasterReader
    cdn: CdnRefresher
    outcomes: OutcomePublisher
    storage_patience_s: float

    async def outcome_of(self, ended: EndedTake, context: Context) -> RenditionStored | SynthesisFailed:
        """Store the take, or say why not. Repeating it changes nothing that is stored."""
        event = ended.event
        patience = Patience.until(event.job.deadline_at, otherwise_s=self.storage_patience_s)
        try:
            return await self._store(ended, patience, context)
        except UnusableTakeError as error:
            return _failed(event, error.code, str(error))
        except StorageUnavailableError as error:
            return _failed(event, ErrorCode.STORAGE_UNAVAILABLE, str(error))
        except (SpoolError, TranscodeError, MasterMissingError) as error:
            return _failed(event, ErrorCode.INTERNAL, str(error))

    async def _store(self, ended: EndedTake, patience: Patience, context: Context) -> RenditionStored:
        started = time.monotonic()
        job = ended.event.job
        # Before anything is said of this take: a record can come again after its synthesis was stored, even without its
        # chunks, whose offsets are committed one by one.
        stored = await self.library.stored(job.fingerprint, patience)
        facts = stored or await self._checked(ended)

        async def samples() -> Samples:
            if ended.problem is None and facts.pcm_sha256 == ended.event.sha256:
                return await self.pool.run(self.spool.samples, ended.take.take_id)
            return await self.masters.samples(self.library.key_of_master(facts), facts.pcm_sha256, patience)

        async def progress(state: State) -> None:
            await self.outcomes.progress(job.fingerprint, job.job_id, state, context)

        files = await self.maker.ensure(facts, (MASTER, *job.formats), samples, patience, progress, new=stored is None)
        if self.cdn.configured:
            await progress(State.REFRESHING)
            await self.cdn.refresh([files[each].url for each in dict.fromkeys(job.formats)])
        return _stored(ended.event, facts, files, int((time.monotonic() - started) * 1000))

    async def _checked(self, ended: EndedTake) -> SynthesisFacts:
        if ended.problem is not None:
            raise UnusableTakeError(ErrorCode.INTERNAL, f"the audio did not arrive whole: {ended.problem}")
        fault = await self.pool.run(_fault, self.spool, ended.event)
        if fault is not None:
            raise fault
        event = ended.event
        return SynthesisFacts(
            fingerprint=event.job.fingerprint,
            pcm_sha256=event.sha256,
            samples=event.samples,
            sample_rate=event.sample_rate,
            engine=event.engine,
            take_id=event.take_id,
            truncated=event.truncated,
        )


def _fault(spool: Spool, event: TakeFinished) -> UnusableTakeError | None:
    """Runs in the pool: checksum first, then the sound."""
    samples = spool.samples(event.take_id)
    if pcm_sha256(samples) != event.sha256:
        return UnusableTakeError(ErrorCode.INTERNAL, "the audio did not arrive whole: its checksum is another")
    sound = measure(samples, event.sample_rate)
    fault = fault_of(sound, event.job.spec.text, truncated=event.truncated)
    return UnusableTakeError(ErrorCode.BAD_AUDIO, fault) if fault else None


def _stored(event: TakeFinished, facts: SynthesisFacts, files: Files, upload_ms: int) -> RenditionStored:
    return RenditionStored(
        fingerprint=facts.fingerprint,
        job_id=event.job.job_id,
        take_id=facts.take_id,
        master=files[MASTER],
        renditions=tuple(files[each] for each in dict.fromkeys(event.job.formats)),
        duration_s=facts.duration_s,
        sample_rate=facts.sample_rate,
        engine=facts.engine,
        truncated=facts.truncated,
        attempts=event.attempts,
        queued_ms=event.queued_ms,
        synthesis_ms=event.synthesis_ms,
        upload_ms=upload_ms,
    )


def _failed(event: TakeFinished, code: ErrorCode, message: str) -> SynthesisFailed:
    return SynthesisFailed(
        fingerprint=event.job.fingerprint,
        job_id=event.job.job_id,
        code=code,
        message=message,
        attempts=event.attempts,
    )
