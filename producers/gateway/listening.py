"""One listener's way through one synthesis: the audio in the making, or the stored one, from any sample on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from producers.gateway.cache import Cache
from producers.gateway.problems import ProblemError
from producers.gateway.stored_audio import Recording, StoredAudio
from producers.gateway.take_hub import TakeHub
from producers.gateway.tickets import other_content
from schemas.audio import BYTES_PER_SAMPLE
from schemas.codes import AudioFormat
from schemas.completions import CompletionData, RequestStatus

# What is handed to a listener at once: about 0.7 s of speech.
_BLOCK_BYTES = 32_768


@dataclass(slots=True)
class Listening:
    """Where a listener is. Samples are counted at `sample_rate`, whichever file or take they come from."""

    hub: TakeHub
    stored: StoredAudio
    cache: Cache
    fingerprint: str
    completion: asyncio.Future[CompletionData]
    """The end of the request this is for."""
    timeout_s: float
    sample: int = 0
    """The next sample to be heard."""
    sample_rate: int = 0
    """Hz; 0 until the first block is there. Once it is known it stays: a listener was told."""
    _ear: asyncio.Event = field(default_factory=asyncio.Event)

    async def blocks(self) -> AsyncGenerator[bytes]:
        """PCM from `sample` on, as soon as it is there.

        Raises:
            ProblemError: the request ended without audio, or nothing came for `timeout_s`.
        """
        with self.hub.ear(self.fingerprint) as self._ear:
            while True:
                self._ear.clear()
                take = self.hub.take(self.fingerprint)
                # A take at another rate than was announced is heard from the store, which has it resampled.
                if take is not None and self.sample_rate in (0, take.sample_rate):
                    self.sample_rate = take.sample_rate
                    while block := take.from_sample(self.sample, _BLOCK_BYTES):
                        self.sample += len(block) // BYTES_PER_SAMPLE
                        yield block
                    if take.ended:
                        return
                if self.completion.done():
                    break
                if not self._ear.is_set():
                    await self._wait()
        async with aclosing(self.from_store()) as blocks:
            async for block in blocks:
                yield block

    async def from_store(self) -> AsyncGenerator[bytes]:
        """The rest, out of object storage: the lossless master when the cache knows it, otherwise the own file."""
        recording = await self._recording()
        async with aclosing(recording.blocks()) as blocks:
            async for block in blocks:
                self.sample += len(block) // BYTES_PER_SAMPLE
                yield block

    async def _recording(self) -> Recording:
        completion = self.completion.result()
        if completion.fingerprint not in (None, self.fingerprint):
            raise other_content()
        if completion.audio is None:
            raise failure_of(completion)
        # The rate of the synthesis: the file of a format that knows only some rates may have another.
        self.sample_rate = self.sample_rate or completion.audio.sample_rate
        master = await self.cache.rendition(self.fingerprint, AudioFormat.FLAC)
        url = master.url if master else completion.audio.url
        return await self.stored.recording(url, self.sample, sample_rate=self.sample_rate)

    async def _wait(self) -> None:
        self.completion.add_done_callback(self._stir)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._ear.wait()
        except TimeoutError:
            raise ProblemError(504, "deadline_exceeded", "no audio came in time", retry_after_s=1) from None
        finally:
            self.completion.remove_done_callback(self._stir)

    def _stir(self, _completion: object) -> None:
        self._ear.set()


def failure_of(completion: CompletionData) -> ProblemError:
    """The refusal that stands for a request that ended without audio."""
    if completion.error is not None:
        return ProblemError(
            422 if completion.error.code in _CLIENTS else 502, completion.error.code, completion.error.message
        )
    return ProblemError(409, completion.status, f"the request is {completion.status}")


def ended(completion: CompletionData) -> "asyncio.Future[CompletionData]":
    """An end that is known already."""
    future: asyncio.Future[CompletionData] = asyncio.get_running_loop().create_future()
    future.set_result(completion)
    return future


def completion_of(status: RequestStatus) -> CompletionData:
    """The end of a request as its last status tells it.

    Raises:
        ValueError: it has not ended.
    """
    return CompletionData.model_validate(
        {**status.model_dump(include={"request_id", "fingerprint", "cached", "audio", "error"}), "status": status.state}
    )


_CLIENTS = frozenset(
    {"invalid_request", "request_conflict", "unsupported_voice", "unsupported_dialect", "text_not_speakable"}
)
