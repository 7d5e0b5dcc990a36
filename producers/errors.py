"""What can go wrong between a client and its audio."""

from infra.errors import UserError
from schemas.codes import ErrorCode
from schemas.completions import CompletionData


class RequestInvalidError(ValueError):
    """A request that voxbus would not accept; nothing was sent.

    Attributes:
        field: the field at fault, such as "text" or "style.oral"; "" for the whole request.
    """

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class SpeechFailedError(Exception):
    """The request ended without audio.

    Attributes:
        code: from the closed list; None when it was cancelled or expired without one.
        message: why, in words.
        completion: the whole end of the request, with `status`, `request_id` and `metadata`.
    """

    def __init__(self, code: ErrorCode | None, message: str, completion: CompletionData) -> None:
        super().__init__(f"{code or completion.status}: {message}")
        self.code = code
        self.message = message
        self.completion = completion


class SpeechTimeoutError(TimeoutError):
    """No end of the request was seen in time. The request itself goes on.

    Attributes:
        request_id: ask for it later with `voxbus status`.
    """

    def __init__(self, request_id: str, timeout_s: float) -> None:
        super().__init__(f"no completion of request {request_id} within {timeout_s:g} s")
        self.request_id = request_id


class PublishError(UserError):
    """The bus did not take a message."""


class DownloadError(UserError):
    """The audio could not be fetched, or is not what the completion says."""
