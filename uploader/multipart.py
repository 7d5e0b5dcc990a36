"""Objects above one part: uploaded in parts, a failed part alone again, nothing left behind.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html: parts of at least 5 MiB (the last aside), at
most 10,000 of them; what is neither completed nor aborted is kept, and paid for, for ever.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import IO

from botocore.exceptions import ClientError

from infra.logging import get_logger
from uploader.object_store import ObjectHeaders, ObjectStore, StorageUnavailableError, code_of, is_taken, storage_errors
from uploader.patience import Patience
from uploader.storage_state import StorageState

_log = get_logger(__name__)
_MAX_PARTS = 10_000


def part_size(size: int, least: int) -> int:
    """Bytes per part: `least`, or as many as keep an object within 10,000 parts."""
    return max(least, -(-size // _MAX_PARTS))


class MultipartUploader:
    """Uploads one large file at a time per call."""

    def __init__(self, store: ObjectStore, *, part_bytes: int, state: StorageState) -> None:
        self._store = store
        self._part_bytes = part_bytes
        self._state = state

    async def put(
        self,
        key: str,
        file: IO[bytes],
        size: int,
        headers: ObjectHeaders,
        patience: Patience,
        *,
        replace: bool = False,
    ) -> bool:
        """Store a file; False when the key is taken already, unless it may be replaced.

        Raises:
            StorageUnavailableError: a part did not get through while there was patience; the upload is aborted.
        """
        step = part_size(size, self._part_bytes)
        reading = asyncio.Lock()  # the parts share one file position
        async with self._upload(key, headers, patience) as upload_id:
            async with asyncio.TaskGroup() as parts:
                tasks = [
                    parts.create_task(self._part(key, upload_id, number, (file, start, step), reading, patience))
                    for number, start in enumerate(range(0, size, step), 1)
                ]
            tags = [{"PartNumber": number, "ETag": task.result()} for number, task in enumerate(tasks, 1)]
            return await self._state.insist(
                patience,
                "complete_multipart_upload",
                lambda: self._complete(key, upload_id, tags, size, replace=replace),
            )

    async def abort_abandoned(self, older_than_s: float) -> int:
        """Abort uploads below our prefix that began so long ago that nobody can be at them.

        Returns:
            How many.
        """
        store, bound = self._store, datetime.now(UTC) - timedelta(seconds=older_than_s)
        prefix = f"{store.prefix}audio/"
        aborted = 0
        marker: dict[str, str] = {}
        while True:
            with storage_errors():
                answer = await store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=prefix, **marker)
            for upload in answer.get("Uploads", ()):
                if upload["Key"].startswith(prefix) and upload["Initiated"] <= bound:
                    await self._abort(upload["Key"], upload["UploadId"])
                    aborted += 1
            # A page holds a thousand at most.
            after = {"KeyMarker": answer.get("NextKeyMarker"), "UploadIdMarker": answer.get("NextUploadIdMarker")}
            next_marker = {name: value for name, value in after.items() if value}
            if not answer.get("IsTruncated") or next_marker == marker:
                return aborted
            marker = next_marker

    @asynccontextmanager
    async def _upload(self, key: str, headers: ObjectHeaders, patience: Patience) -> AsyncIterator[str]:
        upload_id = await self._state.insist(patience, "create_multipart_upload", lambda: self._create(key, headers))
        try:
            yield upload_id
        except BaseExceptionGroup as group:
            # Of many parts that failed for one reason, one is told.
            await self._give_up(key, upload_id)
            raise group.exceptions[0] from None
        except BaseException:
            await self._give_up(key, upload_id)
            raise

    async def _give_up(self, key: str, upload_id: str) -> None:
        # A cancelled upload is aborted too; what fails even so is found at the next start.
        try:
            await asyncio.shield(self._abort(key, upload_id))
        except StorageUnavailableError as error:
            _log.warning("multipart upload not aborted", key=key, error=str(error))

    async def _create(self, key: str, headers: ObjectHeaders) -> str:
        with storage_errors():
            answer = await self._store.client.create_multipart_upload(
                Bucket=self._store.bucket,
                Key=key,
                ContentType=headers.media_type,
                CacheControl=headers.cache_control,
                Metadata=headers.metadata,
            )
            return str(answer["UploadId"])

    async def _part(
        self,
        key: str,
        upload_id: str,
        number: int,
        span: tuple[IO[bytes], int, int],
        reading: asyncio.Lock,
        patience: Patience,
    ) -> str:
        async def attempt() -> str:
            # A slot is held while the part is under way, not in the pauses between attempts: others may get through.
            async with self._store.bodies:
                async with reading:
                    body = await asyncio.to_thread(_read, *span)
                return await self._send_part(key, upload_id, number, body)

        return await self._state.insist(patience, "upload_part", attempt)

    async def _send_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        with storage_errors():
            answer = await self._store.client.upload_part(
                Bucket=self._store.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body
            )
            return str(answer["ETag"])

    async def _complete(
        self, key: str, upload_id: str, tags: list[dict[str, object]], size: int, *, replace: bool
    ) -> bool:
        condition = {} if replace else {"IfNoneMatch": "*"}
        with storage_errors():
            try:
                await self._store.client.complete_multipart_upload(
                    Bucket=self._store.bucket,
                    Key=key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": tags},
                    **condition,
                )
            except ClientError as error:
                if not is_taken(error) and not await self._is_complete(key, size):
                    raise
                await self._abort(key, upload_id)
                return False
            return True

    async def _is_complete(self, key: str, size: int) -> bool:
        # The answer to an earlier attempt was lost: the upload is gone because it is the object now.
        found = await self._store.head(key)
        return found is not None and found.bytes == size

    async def _abort(self, key: str, upload_id: str) -> None:
        with storage_errors():
            try:
                await self._store.client.abort_multipart_upload(Bucket=self._store.bucket, Key=key, UploadId=upload_id)
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise


def _read(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)
