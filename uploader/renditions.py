"""The files of one synthesis: those that are stored already are kept, the others made and stored."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import ExitStack
from typing import Any, TypeVar

from schemas.codes import AudioFormat, State
from schemas.outcomes import StoredObject
from uploader import metrics
from uploader.keys import SynthesisFacts
from uploader.library import Library
from uploader.patience import Patience
from uploader.pool import Pool
from uploader.spool import Samples
from uploader.transcoding import EncodedFile, encode

T = TypeVar("T")

Files = dict[AudioFormat, StoredObject]
SamplesSource = Callable[[], Awaitable[Samples]]
Progress = Callable[[State], Awaitable[None]]


class RenditionMaker:
    """Encodes in the pool, stores through the library."""

    def __init__(self, library: Library, pool: Pool, *, folder: str | None) -> None:
        self._library = library
        self._pool = pool
        self._folder = folder

    async def ensure(
        self,
        facts: SynthesisFacts,
        formats: Iterable[AudioFormat],
        samples: SamplesSource,
        patience: Patience,
        progress: Progress,
        *,
        new: bool = False,
    ) -> Files:
        """Have every format stored.

        Args:
            facts: which synthesis.
            formats: which files, repeats allowed.
            samples: asked only when something is missing.
            patience: how long storage may be down.
            progress: told when encoding and when uploading begins.
            new: nothing of the synthesis is stored, so nothing has to be looked up.

        Raises:
            StorageUnavailableError, TranscodeError, and what `samples` raises.
        """
        wanted = list(dict.fromkeys(formats))
        files = {} if new else await self._stored(facts, wanted, patience)
        missing = [each for each in wanted if each not in files]
        if missing:
            await progress(State.TRANSCODING)
            with ExitStack() as made:
                encoded = await self._encode(facts, missing, await samples(), made)
                await progress(State.UPLOADING)
                files |= await self._store(facts, encoded, patience)
        return files

    async def _stored(self, facts: SynthesisFacts, formats: list[AudioFormat], patience: Patience) -> Files:
        found = await _together(self._library.rendition(facts, each, patience) for each in formats)
        return {each: stored for each, stored in zip(formats, found, strict=True) if stored is not None}

    async def _encode(
        self, facts: SynthesisFacts, formats: list[AudioFormat], samples: Samples, made: ExitStack
    ) -> list[EncodedFile]:
        async def one(audio_format: AudioFormat) -> EncodedFile:
            started = time.monotonic()
            result = await self._pool.run(encode, samples, facts.sample_rate, audio_format, folder=self._folder)
            made.callback(result.file.close)
            metrics.ENCODING.labels(audio_format).observe(time.monotonic() - started)
            return result

        return await _together(one(audio_format) for audio_format in formats)

    async def _store(self, facts: SynthesisFacts, encoded: list[EncodedFile], patience: Patience) -> Files:
        stored = await _together(self._library.add(facts, file, patience) for file in encoded)
        return {each.format: each for each in stored}


async def _together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
