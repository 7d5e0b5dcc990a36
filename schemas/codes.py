"""The closed lists: states of a request, codes of a failure, formats, priorities."""

from enum import StrEnum


class State(StrEnum):
    """Where a request is. The order of the members is the order of the road."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    SYNTHESIZING = "synthesizing"
    TRANSCODING = "transcoding"
    UPLOADING = "uploading"
    REFRESHING = "refreshing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows this state."""
        return self in _TERMINAL


_TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED})

# Share of the whole road done when a state begins, in percent; synthesis runs from 10 to 70.
PERCENT_AT: dict[State, int] = {
    State.ACCEPTED: 0,
    State.QUEUED: 5,
    State.SYNTHESIZING: 10,
    State.TRANSCODING: 75,
    State.UPLOADING: 85,
    State.REFRESHING: 95,
    State.COMPLETED: 100,
    State.FAILED: 100,
    State.CANCELLED: 100,
    State.EXPIRED: 100,
}


class ErrorCode(StrEnum):
    """Why a request did not complete. Nothing outside this list is ever reported."""

    INVALID_REQUEST = "invalid_request"
    REQUEST_CONFLICT = "request_conflict"
    UNSUPPORTED_VOICE = "unsupported_voice"
    UNSUPPORTED_DIALECT = "unsupported_dialect"
    TEXT_NOT_SPEAKABLE = "text_not_speakable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    ENGINE_CRASHED = "engine_crashed"
    ENGINE_TIMEOUT = "engine_timeout"
    BAD_AUDIO = "bad_audio"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    INTERNAL = "internal"


class AudioFormat(StrEnum):
    """File formats a request can ask for."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OPUS = "opus"

    @property
    def media_type(self) -> str:
        """The MIME type of such a file."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OPUS: "audio/ogg",
}


class Priority(StrEnum):
    """Interactive requests go first; bulk keeps a guaranteed share."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
