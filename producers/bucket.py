"""The bucket as the audit sees it: where a completion's URL points to, and what really lies there."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import ServerUnavailableError, UserError
from infra.settings import S3Settings
from producers.audit import ObjectFacts

_CHUNK_BYTES = 262_144
_AT_ONCE = 8
# Seconds; a command should say soon that the store is away.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 10.0
_ABSENT = {"404", "NoSuchKey", "NotFound"}


def key_of(url: str, settings: S3Settings) -> str | None:
    """The object key behind a completion's URL; None when the URL is not of this bucket.

    Understands the public base address, path style (`host/bucket/key`) and virtual hosts (`bucket.host/key`).
    """
    base = (settings.public_base_url or "").rstrip("/")
    if base and url.startswith(base + "/"):
        return unquote(urlsplit(url.removeprefix(base + "/")).path)
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    path = unquote(parts.path).lstrip("/")
    if host.startswith(f"{settings.bucket}."):
        return path or None
    bucket, _, key = path.partition("/")
    return key if bucket == settings.bucket and key else None


class Bucket:
    """A connected bucket. Make one with `open_bucket`."""

    def __init__(self, client: Any, settings: S3Settings) -> None:
        self._client = client
        self._settings = settings

    async def facts(self, keys: Iterable[str], *, read: bool) -> Mapping[str, ObjectFacts | None]:
        """What lies at each key; None: nothing.

        Args:
            keys: object keys, each looked at once.
            read: read every object and compute its checksum; otherwise only its size is asked for.

        Raises:
            ServerUnavailableError: the store does not answer.
            UserError: it refuses.
        """
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(key: str) -> tuple[str, ObjectFacts | None]:
            async with gate:
                return key, await self._facts(key, read=read)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(key)) for key in sorted(set(keys))]
        # A body that is cut off comes as aiohttp's own error.
        except* (BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError, OSError) as errors:
            raise self._trouble(_first(errors)) from None
        return dict(task.result() for task in tasks)

    async def _facts(self, key: str, *, read: bool) -> ObjectFacts | None:
        try:
            if not read:
                head = await self._client.head_object(Bucket=self._settings.bucket, Key=key)
                return ObjectFacts(head["ContentLength"], None)
            answer = await self._client.get_object(Bucket=self._settings.bucket, Key=key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ABSENT:
                return None
            raise
        digest, size = hashlib.sha256(), 0
        async with answer["Body"] as body:
            async for piece in body.iter_chunks(_CHUNK_BYTES):
                digest.update(piece)
                size += len(piece)
        return ObjectFacts(size, digest.hexdigest())

    def _trouble(self, error: BaseException) -> UserError:
        place = self._settings.endpoint_url or f"AWS ({self._settings.region})"
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "an error")
            return UserError(f"object storage at {place} refuses: {code} on bucket {self._settings.bucket}")
        return ServerUnavailableError(
            "object storage", place, "start one with `voxbus up`, or set VOXBUS_S3__ENDPOINT_URL"
        )


@asynccontextmanager
async def open_bucket(settings: S3Settings) -> AsyncIterator[Bucket]:
    """A client of the bucket; connects with the first question."""
    secret = settings.secret_access_key
    config = AioConfig(
        connect_timeout=_CONNECT_TIMEOUT_S, read_timeout=_READ_TIMEOUT_S, retries={"total_max_attempts": 2}
    )
    async with get_session().create_client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=config,
    ) as client:
        yield Bucket(client, settings)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
