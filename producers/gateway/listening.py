"""One listener's way through one synthesis: the audio in the making, or the stored one, from any sample on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from producers.gateway.cache import Cache
from producers.gateway.problems import ProblemError
from producers.gateway.stored_audio import Recording, StoredAudio
from producers.gateway.take_hub import TakeHub
from schemas.audio import BYTES_PER_SAMPLE
from schemas.codes import AudioFormat
from schemas.completions import CompletionData, RequestStatus

# What is handed to a listener at once: about 0.7 s of speech.
_BLOCK_BYTES = 32_768


@dataclass(slots=True)
class Listening:
    """Where a listener is. `sample_rate` is known with the first block."""

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
    _ear: asyncio.Event = field(default_factory=asyncio.Event)

    async def blocks(self) -> AsyncIterator[bytes]:
        """PCM from `sample` on, as soon as it is there.

        Raises:
            ProblemError: the request ended without audio, or nothing came for `timeout_s`.
        """
        with self.hub.ear(self.fingerprint) as self._ear:
            while True:
                self._ear.clear()
                take = self.hub.take(self.fingerprint)
                if take is not None:
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
        async for block in self.from_store():
            yield block

    async def from_store(self) -> AsyncIterator[bytes]:
        """The rest, out of object storage: the lossless master when the cache knows it, otherwise the own file."""
        async for block in (await self._recording()).blocks():
            self.sample += len(block) // BYTES_PER_SAMPLE
            yield block

    async def _recording(self) -> Recording:
        completion = self.completion.result()
        if completion.audio is None:
            raise failure_of(completion)
        master = await self.cache.rendition(self.fingerprint, AudioFormat.FLAC)
        recording = await self.stored.recording(master.url if master else completion.audio.url, self.sample)
        self.sample_rate = recording.sample_rate
        return recording

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
