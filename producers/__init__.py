"""Front doors to voxbus: the Python client for chatbots, and the commands that stand on it."""

from producers.client import Pending, Receipt, SpeechClient
from producers.download import download
from producers.errors import DownloadError, PublishError, RequestInvalidError, SpeechFailedError, SpeechTimeoutError

__all__ = [
    "DownloadError",
    "Pending",
    "PublishError",
    "Receipt",
    "RequestInvalidError",
    "SpeechClient",
    "SpeechFailedError",
    "SpeechTimeoutError",
    "download",
]
