"""Stored masters, read back to make further files of them."""

from typing import IO

from uploader.library import Library
from uploader.patience import Patience
from uploader.pool import Pool
from uploader.spool import Samples
from uploader.transcoding import TranscodeError, decode


class MasterMissingError(Exception):
    """The master is not in object storage any more: the synthesis has to be made anew."""


class MasterReader:
    """Fetches and decodes."""

    def __init__(self, library: Library, pool: Pool, *, folder: str | None) -> None:
        self._library = library
        self._pool = pool
        self._folder = folder

    async def samples(self, key: str, patience: Patience) -> Samples:
        """The samples of a master.

        Raises:
            MasterMissingError: it is gone.
            TranscodeError: it cannot be read.
            StorageUnavailableError: storage does not answer while there is patience.
        """
        file = await self._library.master_file(key, patience, folder=self._folder)
        if file is None:
            raise MasterMissingError("the master is not in object storage any more")
        return await self._pool.run(_decoded, file, self._folder)


def _decoded(file: IO[bytes], folder: str | None) -> Samples:
    with file:
        try:
            samples, _ = decode(file, folder=folder)
        except OSError as error:
            raise TranscodeError(f"the master cannot be kept: {error.strerror}") from error
    return samples
