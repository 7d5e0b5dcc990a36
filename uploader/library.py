"""What object storage holds of each synthesis: looked up, added to, never changed."""

import asyncio
import time
from typing import IO

from infra.logging import get_logger
from schemas.codes import AudioFormat
from schemas.outcomes import StoredObject
from uploader import metrics
from uploader.keys import CACHE_CONTROL, MASTER, SynthesisFacts, facts_of, folder_of, metadata_of, object_key
from uploader.multipart import MultipartUploader
from uploader.object_store import FoundObject, ObjectHeaders, ObjectStore
from uploader.patience import Patience
from uploader.storage_state import StorageState
from uploader.transcoding import EncodedFile, file_rate

_log = get_logger(__name__)


class Library:
    """Masters and renditions by fingerprint."""

    def __init__(
        self, store: ObjectStore, multipart: MultipartUploader, state: StorageState, *, part_bytes: int
    ) -> None:
        self._store = store
        self._multipart = multipart
        self._state = state
        self._part_bytes = part_bytes

    async def stored(self, fingerprint: str, patience: Patience) -> SynthesisFacts | None:
        """The facts of the synthesis whose master is stored, the oldest one of several; None when there is none.

        Raises:
            StorageUnavailableError: storage does not answer while there is patience.
        """
        folder = folder_of(self._store.prefix, fingerprint)
        keys = await self._state.insist(patience, "list", lambda: self._store.keys(folder))
        for key in keys:
            if key.endswith(f".{MASTER}") and (facts := await self.master_facts(key, patience)) is not None:
                return facts
        return None

    async def master_facts(self, key: str, patience: Patience) -> SynthesisFacts | None:
        """What a master says of its synthesis; None when it is gone, or not ours."""
        found = await self._head(key, patience)
        return _facts(found) if found else None

    async def rendition(
        self, facts: SynthesisFacts, audio_format: AudioFormat, patience: Patience
    ) -> StoredObject | None:
        """One rendition as it is stored; None when it is not."""
        found = await self._head(object_key(self._store.prefix, facts, audio_format), patience)
        return await self._described(found, facts, audio_format) if found else None

    async def add(self, facts: SynthesisFacts, encoded: EncodedFile, patience: Patience) -> StoredObject:
        """Store a file, or find that somebody else did: then what is described is theirs.

        Raises:
            StorageUnavailableError: storage does not answer while there is patience.
        """
        key = object_key(self._store.prefix, facts, encoded.format)
        headers = ObjectHeaders(encoded.format.media_type, CACHE_CONTROL, _metadata(facts, encoded))
        started = time.monotonic()
        new = await self._put(key, encoded, headers, patience)
        metrics.STORING.labels(encoded.format).observe(time.monotonic() - started)
        if new:
            metrics.STORED_BYTES.labels(encoded.format).inc(encoded.bytes)
            metrics.STORED_SECONDS.labels(encoded.format).inc(facts.duration_s)
            return await self._describe(key, facts, encoded.format, encoded.bytes, encoded.sha256)
        found = await self._head(key, patience)
        if found is not None and (stored := await self._described(found, facts, encoded.format)) is not None:
            return stored
        # Something that is not ours stands at our key (or what was there has just been deleted): ours goes there.
        _log.warning("object at our key is not ours; replacing it", key=key)
        await self._put(key, encoded, headers, patience, replace=True)
        return await self._describe(key, facts, encoded.format, encoded.bytes, encoded.sha256)

    async def master_file(self, key: str, patience: Patience, *, folder: str | None) -> IO[bytes] | None:
        """The content of a master; None when it is gone."""
        return await self._state.insist(patience, "get_object", lambda: self._store.fetch(key, folder=folder))

    def key_of_master(self, facts: SynthesisFacts) -> str:
        """Where the master of a synthesis stands."""
        return object_key(self._store.prefix, facts, MASTER)

    async def _put(
        self, key: str, encoded: EncodedFile, headers: ObjectHeaders, patience: Patience, *, replace: bool = False
    ) -> bool:
        if encoded.bytes > self._part_bytes:
            return await self._multipart.put(key, encoded.file, encoded.bytes, headers, patience, replace=replace)
        body = await asyncio.to_thread(_whole, encoded.file)
        return await self._state.insist(
            patience, "put_object", lambda: self._store.put(key, body, headers, replace=replace)
        )

    async def _head(self, key: str, patience: Patience) -> FoundObject | None:
        return await self._state.insist(patience, "head_object", lambda: self._store.head(key))

    async def _described(
        self, found: FoundObject, facts: SynthesisFacts, audio_format: AudioFormat
    ) -> StoredObject | None:
        sha256 = {name.lower(): value for name, value in found.metadata.items()}.get("sha256")
        if sha256 is None or found.bytes == 0:
            return None
        return await self._describe(found.key, facts, audio_format, found.bytes, sha256)

    async def _describe(
        self, key: str, facts: SynthesisFacts, audio_format: AudioFormat, size: int, sha256: str
    ) -> StoredObject:
        return StoredObject(
            key=key,
            format=audio_format,
            bytes=size,
            sha256=sha256,
            url=await self._store.url(key),
            sample_rate=file_rate(audio_format, facts.sample_rate),
        )


def _metadata(facts: SynthesisFacts, encoded: EncodedFile) -> dict[str, str]:
    return metadata_of(facts, encoded.sha256, file_rate=file_rate(encoded.format, facts.sample_rate))


def _facts(found: FoundObject) -> SynthesisFacts | None:
    try:
        return facts_of(found.metadata)
    except ValueError as error:
        _log.warning("object without our metadata passed over", key=found.key, error=str(error))
        return None


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
