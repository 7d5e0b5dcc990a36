"""Object storage as it is: conditional writes, parts, what stands at a key already."""

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import soundfile
from botocore.exceptions import ClientError

from infra.errors import UserError
from infra.health import Readiness
from infra.settings import S3Settings
from schemas.codes import AudioFormat
from schemas.completions import EngineInfo
from tests.uploader_world import speech
from uploader.keys import SynthesisFacts
from uploader.library import Library
from uploader.multipart import MultipartUploader
from uploader.object_store import ObjectHeaders, ObjectStore, is_taken, object_store
from uploader.patience import Patience
from uploader.settings import MIN_PART_BYTES, UploaderFragment
from uploader.storage_state import StorageState
from uploader.transcoding import EncodedFile, encode, pcm_sha256

HEADERS = ObjectHeaders("audio/wav", "public, immutable", {"sha256": "0" * 64})
LARGE = bytes(range(256)) * (2 * MIN_PART_BYTES // 256 + 1)


@dataclass
class Shelf:
    store: ObjectStore
    multipart: MultipartUploader
    library: Library


@pytest.fixture
async def shelf(s3_settings: S3Settings) -> AsyncIterator[Shelf]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(object_store(s3_settings, UploaderFragment()))
        state = StorageState(Readiness())
        multipart = MultipartUploader(store, part_bytes=MIN_PART_BYTES, state=state)
        yield Shelf(store, multipart, Library(store, multipart, state, part_bytes=MIN_PART_BYTES))


async def test_who_writes_first_stays(shelf: Shelf) -> None:
    assert await shelf.store.put("audio/a", b"first", HEADERS)
    assert not await shelf.store.put("audio/a", b"second", HEADERS)
    found = await shelf.store.head("audio/a")
    assert found is not None
    assert (found.bytes, found.metadata["sha256"]) == (5, "0" * 64)
    assert await shelf.store.put("audio/a", b"third!", HEADERS, replace=True)


async def test_who_writes_first_stays_in_parts_too(shelf: Shelf) -> None:
    patience = Patience(30)
    assert await shelf.multipart.put("audio/l", io.BytesIO(LARGE), len(LARGE), HEADERS, patience)
    other = LARGE[::-1]
    assert not await shelf.multipart.put("audio/l", io.BytesIO(other), len(other), HEADERS, patience)
    file = await shelf.store.fetch("audio/l", folder=None)
    assert file is not None
    with file:
        assert file.read() == LARGE
    answer = await shelf.store.client.list_multipart_uploads(Bucket=shelf.store.bucket)
    assert answer.get("Uploads", []) == []


async def test_what_is_absent_is_an_answer(shelf: Shelf) -> None:
    assert await shelf.store.head("audio/absent") is None
    assert await shelf.store.fetch("audio/absent", folder=None) is None
    assert await shelf.store.keys("audio/absent") == []


async def test_something_else_at_our_key_is_replaced(shelf: Shelf) -> None:
    samples = speech(0.5)
    facts = SynthesisFacts(
        "f" * 64, pcm_sha256(samples), len(samples), 24_000, EngineInfo(name="tone", revision="é", seed=1), "t", False
    )
    encoded: EncodedFile = encode(samples, 24_000, AudioFormat.FLAC)
    with encoded.file:
        await shelf.store.put(shelf.library.key_of_master(facts), b"", ObjectHeaders("text/plain", "no-store", {}))
        assert await shelf.library.stored(facts.fingerprint, Patience(5)) is None
        stored = await shelf.library.add(facts, encoded, Patience(5))
    found = await shelf.store.head(stored.key)
    assert found is not None
    assert (found.bytes, found.metadata["sha256"]) == (stored.bytes, stored.sha256)
    assert await shelf.library.stored(facts.fingerprint, Patience(5)) == facts


async def test_what_is_told_of_a_file_is_what_its_header_says(shelf: Shelf) -> None:
    """Opus knows few rates; the file's own is told, not the master's."""
    samples = speech(0.5)
    facts = SynthesisFacts(
        "e" * 64, pcm_sha256(samples), len(samples), 22_050, EngineInfo(name="tone", revision="1", seed=1), "t", False
    )
    for audio_format in AudioFormat:
        encoded: EncodedFile = encode(samples, 22_050, audio_format)
        with encoded.file:
            told = [await shelf.library.add(facts, encoded, Patience(5))]
            encoded.file.seek(0)
            rate = soundfile.info(encoded.file).samplerate
        told.append(await shelf.library.rendition(facts, audio_format, Patience(5)) or told[0])
        assert [each.sample_rate for each in told] == [rate, rate]
        found = await shelf.store.head(told[0].key)
        assert found is not None
        assert (found.metadata["file-sample-rate"], found.metadata["sample-rate"]) == (str(rate), "22050")


async def test_a_large_file_that_replaces_another_goes_in_parts(shelf: Shelf) -> None:
    assert await shelf.store.put("audio/r", b"first", HEADERS)
    assert not await shelf.multipart.put("audio/r", io.BytesIO(LARGE), len(LARGE), HEADERS, Patience(30))
    assert await shelf.multipart.put("audio/r", io.BytesIO(LARGE), len(LARGE), HEADERS, Patience(30), replace=True)
    found = await shelf.store.head("audio/r")
    assert found is not None
    assert found.bytes == len(LARGE)


def test_a_conditional_write_that_meets_another_is_not_taken_for_done() -> None:
    """The other one may yet fail."""

    def answer(code: str) -> ClientError:
        return ClientError({"Error": {"Code": code}}, "PutObject")

    assert is_taken(answer("PreconditionFailed"))
    assert not is_taken(answer("ConditionalRequestConflict"))


async def test_a_missing_bucket_is_created_only_where_wanted(s3_settings: S3Settings) -> None:
    absent = s3_settings.model_copy(update={"bucket": f"{s3_settings.bucket}-b", "create_bucket": False})
    with pytest.raises(UserError, match="does not exist"):
        async with object_store(absent, UploaderFragment()):
            pass
    async with object_store(absent.model_copy(update={"create_bucket": True}), UploaderFragment()) as store:
        assert await store.put("audio/a", b"a", HEADERS)
        await store.client.delete_object(Bucket=store.bucket, Key="audio/a")
        await store.client.delete_bucket(Bucket=store.bucket)
