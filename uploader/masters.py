"""Stored masters, read back to make further files of them."""

from typing import IO

from uploader.library import Library
from uploader.patience import Patience
from uploader.pool import Pool
from uploader.spool import Samples
from uploader.transcoding import TranscodeError, decode, pcm_sha256


class MasterMissingError(Exception):
    """The master is not in object storage any more: the synthesis has to be made anew."""


class MasterReader:
    """Fetches and decodes."""

    def __init__(self, library: Library, pool: Pool, *, folder: str | None) -> None:
        self._library = library
        self._pool = pool
        self._folder = folder

    async def samples(self, key: str, digest: str, patience: Patience) -> Samples:
        """The samples of a master.

        Args:
            key: where it stands.
            digest: SHA-256 that its PCM must have.
            patience: how long storage may be down.

        Raises:
            MasterMissingError: it is gone.
            TranscodeError: it cannot be read, or holds other samples.
            StorageUnavailableError: storage does not answer while there is patience.
        """
        file = await self._library.master_file(key, patience, folder=self._folder)
        if file is None:
            raise MasterMissingError("the master is not in object storage any more")
        return await self._pool.run(_decoded, file, digest, self._folder)


def _decoded(file: IO[bytes], expected: str, folder: str | None) -> Samples:
    with file:
        samples, _ = decode(file, folder=folder)
    if pcm_sha256(samples) != expected:
        raise TranscodeError("the master holds other samples than its metadata says")
    return samples
