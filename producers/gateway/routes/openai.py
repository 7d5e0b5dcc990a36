"""`POST /v1/audio/speech`: compatible with OpenAI's speech endpoint, so that its clients work unchanged."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.types import Receive, Scope, Send

from infra.voices import Catalogue
from producers.gateway import metrics
from producers.gateway.door_state import GatewayState, state_of
from producers.gateway.doorway import SpeechBody, Ticket, problem_of
from producers.gateway.encoding import MEDIA_TYPES, StreamFormat, encoded
from producers.gateway.listening import Listening
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openapi import OPENAI
from schemas.codes import AudioFormat
from schemas.requests import MAX_TEXT_CHARS, SynthesisRequested

router = APIRouter()
# Names of OpenAI's voices stand for ours in turn, so that programs written for them speak.
_THEIR_VOICES = ("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse")
_SPEED_STEPS = 5  # ours is 0 to 9 with 5 as it is spoken; theirs a factor of 0.25 to 4 with 1


class OpenAIVoice(BaseModel):
    """A voice as an object."""

    model_config = ConfigDict(extra="ignore")
    id: str


class OpenAISpeech(BaseModel):
    """The body. Fields of theirs that mean nothing here are taken and ignored."""

    model_config = ConfigDict(extra="ignore")

    input: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)]
    model: str = "voxbus"
    voice: str | OpenAIVoice = "female1"
    response_format: StreamFormat = "mp3"
    speed: float = Field(default=1.0, ge=0.25, le=4.0, allow_inf_nan=False)


@router.post("/v1/audio/speech", summary="Speak a text (OpenAI-compatible)", response_model=None, **OPENAI)
async def create_speech(request: Request) -> StreamingResponse:
    """Audio as it is being made, in the format asked for."""
    state = state_of(request)
    owner = state.keys.require(request)
    await state.limits.take(owner)
    body = _read(await state.body(request))
    ticket = await state.doorway.ticket(
        speech_of(body, state.catalogue), owner, trace=request.headers.get("traceparent")
    )
    async with AsyncExitStack() as resources:
        resources.enter_context(state.listener("file"))
        audio = _audio(state, resources, ticket, body.response_format)
        first = await anext(audio, b"")  # what is to be refused is refused before the answer has begun
        headers = {"X-Request-Id": ticket.request_id, "X-Voxbus-Fingerprint": ticket.fingerprint}
        media_type = MEDIA_TYPES[body.response_format]
        return _OwningResponse(_chained(first, audio), resources.pop_all(), media_type, headers)


def speech_of(body: OpenAISpeech, catalogue: Catalogue) -> SynthesisRequested:
    """Our request for theirs.

    Raises:
        ProblemError: 422, naming their field.
    """
    voice = body.voice if isinstance(body.voice, str) else body.voice.id
    if voice not in catalogue.voices and voice in _THEIR_VOICES:
        ours = sorted(catalogue.voices)
        voice = ours[_THEIR_VOICES.index(voice) % len(ours)]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", voice):
        raise ProblemError(422, "unsupported_voice", "no such voice", pointer="/voice")
    audio_format = AudioFormat.WAV if body.response_format == "pcm" else AudioFormat(body.response_format)
    return SpeechBody(text=body.input, voice=voice, speed=speed_of(body.speed), format=audio_format)


def speed_of(factor: float) -> int:
    """Half the tempo is 0, twice the tempo is 9, and 1 is the middle, 5."""
    step = 5 + (factor - 1) * 4 if factor > 1 else 5 - (1 - factor) * 10
    return max(0, min(9, round(step)))


def _read(body: bytes) -> OpenAISpeech:
    try:
        return OpenAISpeech.model_validate_json(body)
    except ValidationError as error:
        raise problem_of(error) from None


async def _audio(
    state: GatewayState, resources: AsyncExitStack, ticket: Ticket, audio_format: StreamFormat
) -> AsyncIterator[bytes]:
    if audio_format != "pcm":
        hit = await state.doorway.cached(ticket)
        if hit is not None:
            metrics.SPEECH.labels("streamed_hit").inc()
            async for block in state.stored.file(hit.url):
                yield block
            return
    master = await state.doorway.cached(ticket, AudioFormat.FLAC)
    if master is not None:
        metrics.SPEECH.labels("streamed_hit").inc()
        recording = await state.stored.recording(master.url)
        async for piece in encoded(recording.blocks(), audio_format, recording.sample_rate):
            yield piece
        return
    state.backpressure.admit(ticket.request.priority)
    future = await resources.enter_async_context(state.awaited(ticket.request_id))
    await state.doorway.publish(ticket)
    metrics.SPEECH.labels("streamed").inc()
    async for piece in _encoded_live(state.listening(ticket.fingerprint, future), audio_format):
        yield piece


async def _encoded_live(listening: Listening, audio_format: StreamFormat) -> AsyncIterator[bytes]:
    try:
        blocks = listening.blocks()
        first = await anext(blocks, b"")
        async for piece in encoded(_chained(first, blocks), audio_format, listening.sample_rate):
            yield piece
    except ConnectionError:
        raise ProblemError(503, "bus_unavailable", "the message bus does not answer", retry_after_s=2) from None


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in rest:
        yield block


class _OwningResponse(StreamingResponse):
    """A stream that gives back what it holds when it ends, however it ends."""

    def __init__(self, body: AsyncIterator[bytes], resources: AsyncExitStack, media_type: str, headers: dict[str, str]):
        super().__init__(body, media_type=media_type, headers=headers)
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with self._resources:
            await super().__call__(scope, receive, send)
