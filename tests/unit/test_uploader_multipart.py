"""What was left behind is found on every page of the store's list."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from infra.health import Readiness
from uploader.multipart import MultipartUploader
from uploader.object_store import ObjectStore
from uploader.settings import MIN_PART_BYTES
from uploader.storage_state import StorageState


class PagedClient:
    """Lists two uploads a page."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.aborted: list[str] = []

    async def list_multipart_uploads(self, *, KeyMarker: str = "", **_: str) -> dict[str, Any]:  # noqa: N803
        rest = [key for key in self.keys if key > KeyMarker]
        uploads = [{"Key": key, "UploadId": f"id {key}", "Initiated": datetime(2026, 1, 1, tzinfo=UTC)} for key in rest]
        more = {"NextKeyMarker": rest[1], "NextUploadIdMarker": f"id {rest[1]}"} if len(rest) > 2 else {}
        return {"Uploads": uploads[:2], "IsTruncated": bool(more), **more}

    async def abort_multipart_upload(self, *, Key: str, **_: str) -> None:  # noqa: N803
        self.aborted.append(Key)


async def test_abandoned_uploads_beyond_the_first_page_are_aborted() -> None:
    client = PagedClient([f"audio/{number}" for number in range(5)])
    store = cast("ObjectStore", SimpleNamespace(client=client, bucket="b", prefix=""))
    uploader = MultipartUploader(store, part_bytes=MIN_PART_BYTES, state=StorageState(Readiness()))
    assert await uploader.abort_abandoned(60) == 5
    assert client.aborted == client.keys
