"""Further formats of a stored synthesis, made from its master without the engine."""

import time
from dataclasses import dataclass

from schemas.codec import Context
from schemas.codes import AudioFormat, ErrorCode, State
from schemas.jobs import TranscodeRequested
from schemas.outcomes import RenditionStored, SynthesisFailed
from uploader.cdn import CdnRefresher
from uploader.keys import MASTER, SynthesisFacts
from uploader.library import Library
from uploader.masters import MasterMissingError, MasterReader
from uploader.object_store import StorageUnavailableError
from uploader.outcomes import OutcomePublisher
from uploader.patience import Patience
from uploader.renditions import RenditionMaker
from uploader.spool import Samples
from uploader.transcoding import TranscodeError


@dataclass(frozen=True, slots=True)
class Transcoder:
    """Turns a transcode request into its outcome."""

    library: Library
    maker: RenditionMaker
    masters: MasterReader
    cdn: CdnRefresher
    outcomes: OutcomePublisher
    storage_patience_s: float

    async def outcome_of(self, request: TranscodeRequested, context: Context) -> RenditionStored | SynthesisFailed:
        """Store the formats asked for, or say why not. Repeating it changes nothing that is stored."""
        patience = Patience(self.storage_patience_s)
        try:
            return await self._store(request, patience, context)
        except MasterMissingError as error:
            # Without a master the whole synthesis is lost, not only these formats: no `formats` in the failure.
            return _failed(request, ErrorCode.INTERNAL, str(error), ())
        except StorageUnavailableError as error:
            return _failed(request, ErrorCode.STORAGE_UNAVAILABLE, str(error), request.formats)
        except TranscodeError as error:
            return _failed(request, ErrorCode.INTERNAL, str(error), request.formats)

    async def _store(self, request: TranscodeRequested, patience: Patience, context: Context) -> RenditionStored:
        started = time.monotonic()
        facts = await self._facts(request, patience)

        async def samples() -> Samples:
            return await self.masters.samples(request.master.key, facts.pcm_sha256, patience)

        async def progress(state: State) -> None:
            await self.outcomes.progress(request.fingerprint, request.job_id, state, context)

        wanted = tuple(dict.fromkeys(request.formats))
        files = await self.maker.ensure(facts, wanted, samples, patience, progress)
        if self.cdn.configured:
            await progress(State.REFRESHING)
            await self.cdn.refresh([files[each].url for each in wanted])
        return RenditionStored(
            fingerprint=request.fingerprint,
            job_id=request.job_id,
            take_id="",
            master=files.get(MASTER, request.master),
            renditions=tuple(files[each] for each in wanted),
            duration_s=facts.duration_s,
            sample_rate=facts.sample_rate,
            engine=facts.engine,
            truncated=facts.truncated,
            upload_ms=int((time.monotonic() - started) * 1000),
        )

    async def _facts(self, request: TranscodeRequested, patience: Patience) -> SynthesisFacts:
        """What the master itself says of the synthesis."""
        facts = await self.library.master_facts(request.master.key, patience)
        if facts is None:
            raise MasterMissingError("the master is not in object storage any more")
        return facts


def _failed(
    request: TranscodeRequested, code: ErrorCode, message: str, formats: tuple[AudioFormat, ...]
) -> SynthesisFailed:
    return SynthesisFailed(
        fingerprint=request.fingerprint, job_id=request.job_id, code=code, message=message, formats=formats
    )
