"""`POST /v1/audio/speech`: compatible with OpenAI's speech endpoint, so that its clients work unchanged."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from infra.voices import Catalogue
from producers.gateway import metrics
from producers.gateway.door_state import GatewayState, state_of
from producers.gateway.encoding import MEDIA_TYPES, StreamFormat, encoded
from producers.gateway.held_response import HeldResponse, chained, unless_gone
from producers.gateway.listening import Listening
from producers.gateway.problems import ProblemError
from producers.gateway.routes.openapi import OPENAI
from producers.gateway.tickets import SpeechBody, Ticket, problem_of
from schemas.codes import AudioFormat
from schemas.renditions import CachedRendition
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


@dataclass(slots=True)
class _Listener:
    """One who hears a file while it is made."""

    ticket: Ticket
    audio_format: StreamFormat
    until: float
    """When a refusal must be there, by the loop's clock."""
    published: bool = False


@router.post(
    "/v1/audio/speech",
    summary="Speak a text (OpenAI-compatible)",
    response_model=None,
    response_class=Response,
    **OPENAI,
)
async def create_speech(request: Request) -> HeldResponse:
    """Audio as it is being made, in the format asked for."""
    state = state_of(request)
    until = state.answer_by()
    owner = state.keys.require(request)
    await state.limits.take(owner)
    body = _read(await state.body(request))
    ticket = await state.doorway.ticket(
        speech_of(body, state.catalogue), owner, trace=request.headers.get("traceparent")
    )
    listener = _Listener(ticket, body.response_format, until)

    def on_cut() -> None:
        if listener.published:
            state.audience.left(ticket.request_id)

    async with AsyncExitStack() as resources:
        resources.enter_context(state.listener("file"))
        audio = await resources.enter_async_context(aclosing(_audio(state, resources, listener)))
        try:
            # What is to be refused is refused before the answer has begun.
            first = await unless_gone(request, _first(audio))
        except BaseException:
            on_cut()
            raise
        return HeldResponse(
            chained(first, audio),
            resources.pop_all(),
            media_type=MEDIA_TYPES[body.response_format],
            headers={"X-Request-Id": ticket.name, "X-Voxbus-Fingerprint": ticket.fingerprint},
            send_timeout_s=state.settings.gateway.send_timeout_s,
            on_cut=on_cut,
        )


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
        raise problem_of(error, body) from None


async def _audio(state: GatewayState, resources: AsyncExitStack, listener: _Listener) -> AsyncGenerator[bytes]:
    ticket, audio_format = listener.ticket, listener.audio_format
    hit = await state.doorway.cached(ticket) if audio_format != "pcm" else None
    master = await state.doorway.cached(ticket, AudioFormat.FLAC) if hit is None else None
    stored = hit or master
    if stored is not None:
        metrics.SPEECH.labels("streamed_hit").inc()
        await state.doorway.answered(ticket, stored)  # before it is heard, so that it can be asked for after a break
        pieces = state.stored.file(stored.url) if hit else _transcoded(state, stored, audio_format)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
        return
    state.backpressure.admit(ticket.request.priority)
    await resources.enter_async_context(state.audience.follows(ticket.request_id))
    future = await resources.enter_async_context(state.awaited(ticket.request_id, listener.until))
    await state.doorway.publish(ticket, listener.until)
    state.backpressure.announce(ticket.fingerprint, ticket.request.priority, ticket.request.text)
    listener.published = True
    metrics.SPEECH.labels("streamed").inc()
    async for piece in _encoded_live(state.listening(ticket.fingerprint, future), audio_format):
        yield piece
    listener.published = False


async def _transcoded(
    state: GatewayState, master: CachedRendition, audio_format: StreamFormat
) -> AsyncGenerator[bytes]:
    recording = await state.stored.recording(master.url)
    async with aclosing(recording.blocks()) as blocks:
        async for piece in encoded(blocks, audio_format, recording.sample_rate):
            yield piece


async def _encoded_live(listening: Listening, audio_format: StreamFormat) -> AsyncIterator[bytes]:
    try:
        async with aclosing(listening.blocks()) as blocks:
            first = await anext(blocks, b"")
            async for piece in encoded(chained(first, blocks), audio_format, listening.sample_rate):
                yield piece
    except ConnectionError:
        raise ProblemError(503, "bus_unavailable", "the message bus does not answer", retry_after_s=2) from None


async def _first(audio: AsyncIterator[bytes]) -> bytes:
    return await anext(audio, b"")
