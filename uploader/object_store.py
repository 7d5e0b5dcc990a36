"""Object storage over aiobotocore: single requests, each safe to repeat, errors sorted into two kinds.

`StorageUnavailableError` is worth another attempt; anything that is not an error but an answer (absent, already
there) is a return value.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import IO

import aiohttp
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from infra.errors import ServerUnavailableError, UserError
from infra.settings import S3Settings
from uploader.patience import Patience
from uploader.settings import UploaderFragment

_IN_MEMORY = 1 << 20  # bytes of a fetched object that stay in memory
_READ = 1 << 18
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_NO_BUCKET = {"404", "NoSuchBucket"}
# Not 409: another conditional write of the same key goes on this moment, and may yet fail. The next attempt will know.
_THERE = {"412", "PreconditionFailed"}


class StorageUnavailableError(Exception):
    """Storage does not answer, or refuses; it may be well again later."""


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object that is there."""

    key: str
    bytes: int
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class ObjectHeaders:
    """What an object is stored with."""

    media_type: str
    cache_control: str
    metadata: dict[str, str]


class ObjectStore:
    """One bucket. Make one with `object_store`."""

    def __init__(self, client: AioBaseClient, settings: S3Settings, *, requests: int) -> None:
        self.client = client
        self.bucket = settings.bucket
        self.prefix = settings.prefix
        self._settings = settings
        self.bodies = asyncio.Semaphore(requests)

    async def head(self, key: str) -> FoundObject | None:
        """An object's size and metadata; None when it is not there."""
        with storage_errors():
            try:
                answer = await self.client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if code_of(error) in _ABSENT:
                    return None
                raise
            return FoundObject(key, int(answer["ContentLength"]), dict(answer["Metadata"]))

    async def keys(self, prefix: str) -> list[str]:
        """Keys below a prefix, oldest object first; at most a thousand."""
        with storage_errors():
            answer = await self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
            entries = sorted(answer.get("Contents", ()), key=lambda entry: (entry["LastModified"], entry["Key"]))
            return [str(entry["Key"]) for entry in entries]

    async def put(self, key: str, body: bytes, headers: ObjectHeaders, *, replace: bool = False) -> bool:
        """Store a small object in one request; False when the key is taken already."""
        condition = {} if replace else {"IfNoneMatch": "*"}
        async with self.bodies:
            with storage_errors():
                try:
                    await self.client.put_object(
                        Bucket=self.bucket,
                        Key=key,
                        Body=body,
                        ContentType=headers.media_type,
                        CacheControl=headers.cache_control,
                        Metadata=headers.metadata,
                        **condition,
                    )
                except ClientError as error:
                    if is_taken(error):
                        return False
                    raise
                return True

    async def fetch(self, key: str, *, folder: str | None) -> IO[bytes] | None:
        """An object's content as a temporary file, rewound; None when it is not there."""
        with storage_errors():
            try:
                answer = await self.client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if code_of(error) in _ABSENT:
                    return None
                raise
            # The caller closes it.
            file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder, prefix="voxbus-master-")  # noqa: SIM115
            try:
                async with answer["Body"] as body:
                    while block := await body.read(_READ):
                        await asyncio.to_thread(file.write, block)
            except BaseException:
                file.close()
                raise
            file.seek(0)
            return file

    async def url(self, key: str) -> str:
        """Where a receiver fetches an object."""
        if self._settings.public_base_url:
            return f"{self._settings.public_base_url.rstrip('/')}/{key}"
        url: str = await self.client.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=self._settings.presign_ttl_s
        )
        return url

    @property
    def url_lifetime_s(self) -> int | None:
        """Seconds until a URL is worn out; None when it lasts."""
        return None if self._settings.public_base_url else self._settings.presign_ttl_s

    async def check(self) -> None:
        """Whether the bucket answers.

        Raises:
            StorageUnavailableError: it does not.
            UserError: there is no such bucket, or no credentials to ask with.
        """
        with storage_errors():
            try:
                await self.client.head_bucket(Bucket=self.bucket)
            except (NoCredentialsError, PartialCredentialsError):
                raise UserError(
                    "no credentials for object storage; set VOXBUS_S3__ACCESS_KEY_ID and VOXBUS_S3__SECRET_ACCESS_KEY"
                ) from None
            except ClientError as error:
                if code_of(error) not in _NO_BUCKET:
                    raise
                if not self._settings.create_bucket:
                    raise UserError(
                        f"bucket {self.bucket!r} does not exist; create it, or set VOXBUS_S3__CREATE_BUCKET=true"
                    ) from None
                await self._create_bucket()

    async def _create_bucket(self) -> None:
        region = self._settings.region
        # AWS refuses its own default region as a constraint.
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            await self.client.create_bucket(Bucket=self.bucket, **place)
        except ClientError as error:
            if code_of(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise


def code_of(error: ClientError) -> str:
    """The code of an error answer."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_taken(error: ClientError) -> bool:
    """Whether the answer says that the key is there already."""
    return code_of(error) in _THERE


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn every failure of the client into StorageUnavailableError, without addresses or keys of the request."""
    try:
        yield
    except ClientError as error:
        raise StorageUnavailableError(f"storage answered {code_of(error)} to {error.operation_name}") from error
    # aiobotocore hands the body's own errors on as they are: a download cut off is aiohttp's ClientPayloadError.
    except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise StorageUnavailableError(f"storage does not answer: {type(error).__name__}") from error


@asynccontextmanager
async def object_store(s3: S3Settings, settings: UploaderFragment) -> AsyncIterator[ObjectStore]:
    """The bucket of the settings, seen to answer; created where the settings say so.

    Raises:
        ServerUnavailableError: storage does not answer within `start_timeout_s`.
        UserError: the bucket does not exist.
    """
    secret = s3.secret_access_key
    config = AioConfig(
        retries={"mode": "standard", "total_max_attempts": settings.http_attempts},
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.requests + settings.concurrency * 2,
        # Stores other than AWS know neither bucket host names nor the newer trailing checksums.
        s3={"addressing_style": "path" if s3.endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            get_session().create_client(
                "s3",
                endpoint_url=s3.endpoint_url,
                region_name=s3.region,
                aws_access_key_id=s3.access_key_id,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                config=config,
            )
        )
        store = ObjectStore(client, s3, requests=settings.requests)
        try:
            await Patience(settings.start_timeout_s).insist(store.check, on=StorageUnavailableError)
        except StorageUnavailableError as error:
            raise ServerUnavailableError(
                "object storage",
                f"{s3.endpoint_url or 'AWS'} ({error})",
                "start one with `voxbus up`, or set VOXBUS_S3__ENDPOINT_URL and the credentials",
            ) from None
        yield store
