"""The samples of unfinished takes: in memory while they are small, in temporary files when not.

Files are unlinked as soon as they are made, so that nothing is left behind however the process ends; what was in
them is read again from the bus. Methods may block on the disk: call them from a thread. They may be called from several
threads at once.
"""

import tempfile
import threading
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from uploader.settings import SpoolSettings

Samples = npt.NDArray[np.int16]
"""Mono PCM, shape (n,), little-endian int16; possibly a view of a file."""

_SAMPLE = np.dtype("<i2")


class SpoolError(Exception):
    """A take cannot be kept; the message says why.

    Attributes:
        take_id: whose; not always the one that was added to, as others may have to make room.
    """

    def __init__(self, take_id: str, message: str) -> None:
        super().__init__(message)
        self.take_id = take_id


@dataclass(slots=True)
class _Entry:
    """One take: chunks in memory, or their places (start, length in bytes) in a file, in order of arrival."""

    memory: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    file: BinaryIO | None = None
    size: int = 0  # bytes


class Spool:
    """Samples by take and chunk index, within the bounds of the settings."""

    def __init__(self, settings: SpoolSettings) -> None:
        self._settings = settings
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._memory = 0
        self._disk = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes held in memory."""
        return self._memory

    @property
    def disk_bytes(self) -> int:
        """Bytes held in files."""
        return self._disk

    @property
    def full(self) -> bool:
        """Whether the files are at their bound; memory never is, as it empties into files."""
        return self._disk > self._settings.disk_bytes

    def add(self, take_id: str, index: int, pcm: bytes) -> None:
        """Keep a chunk.

        Raises:
            SpoolError: a take is too large, or the disk takes no more of it; nothing of that take is kept then.
        """
        with self._lock:
            self._keep(take_id, index, pcm)
            if self._entries[take_id].size > self._settings.take_bytes:
                self._forget(take_id)
                raise SpoolError(take_id, f"the take is larger than {self._settings.take_bytes} bytes")
            while self._memory > self._settings.memory_bytes:
                self._spill(max((t for t, e in self._entries.items() if e.memory), key=lambda t: self._entries[t].size))

    def samples(self, take_id: str) -> Samples:
        """All samples in order of their index; a view of the file when they are there.

        Valid until the array is let go, also after `discard`.

        Raises:
            SpoolError: a file cannot be read.
        """
        with self._lock:
            entry = self._entries.get(take_id, _Entry())
            try:
                return _from_file(entry, self._settings.folder) if entry.file is not None else _from_memory(entry)
            except OSError as error:
                raise SpoolError(take_id, f"the spool cannot read: {error.strerror}") from None

    def discard(self, take_id: str) -> None:
        """Let a take go; unknown ones too."""
        with self._lock:
            self._forget(take_id)

    def close(self) -> None:
        """Let everything go."""
        with self._lock:
            for take_id in list(self._entries):
                self._forget(take_id)

    def _keep(self, take_id: str, index: int, pcm: bytes) -> None:
        entry = self._entries.setdefault(take_id, _Entry())
        if index in entry.memory or index in entry.places:
            return
        entry.memory[index] = pcm
        self._memory += len(pcm)
        entry.size += len(pcm)
        if entry.file is not None or entry.size > self._settings.take_memory_bytes:
            self._spill(take_id)

    def _spill(self, take_id: str) -> None:
        """Move a take's chunks to its file; each is in memory or in the file, at every moment and whatever fails."""
        entry = self._entries[take_id]
        try:
            if entry.file is None:
                entry.file = _new_file(self._settings.folder)
            for index, pcm in list(entry.memory.items()):
                entry.places[index] = (_append(entry.file, pcm), len(pcm))
                self._disk += len(pcm)
                del entry.memory[index]
                self._memory -= len(pcm)
        except OSError as error:
            self._forget(take_id)
            raise SpoolError(take_id, f"the spool cannot write: {error.strerror}") from None

    def _forget(self, take_id: str) -> None:
        entry = self._entries.pop(take_id, None)
        if entry is None:
            return
        self._memory -= sum(len(pcm) for pcm in entry.memory.values())
        self._disk -= sum(length for _, length in entry.places.values())
        if entry.file is not None:
            entry.file.close()


def _from_memory(entry: _Entry) -> Samples:
    return np.frombuffer(b"".join(entry.memory[index] for index in sorted(entry.memory)), dtype=_SAMPLE)


def _from_file(entry: _Entry, folder: str | None) -> Samples:
    """By places alone: whatever else a failed write left in the file is not read."""
    assert entry.file is not None
    assert not entry.memory
    ordered = [entry.places[index] for index in sorted(entry.places)]
    if _adjoining(ordered):
        return _mapped(entry.file, entry.size)
    with _new_file(folder) as in_order:
        for start, length in ordered:
            entry.file.seek(start)
            _append(in_order, entry.file.read(length))
        return _mapped(in_order, entry.size)


def _adjoining(places: list[tuple[int, int]]) -> bool:
    """Whether each place begins where the one before it ends, and the first at 0."""
    ends = [0, *(start + length for start, length in places)]
    return all(start == end for (start, _), end in zip(places, ends, strict=False))


def _mapped(file: BinaryIO, size: int) -> Samples:
    if size == 0:  # nothing cannot be mapped
        return np.empty(0, dtype=_SAMPLE)
    return np.memmap(file, dtype=_SAMPLE, mode="r", shape=(size // _SAMPLE.itemsize,))


def _new_file(folder: str | None) -> BinaryIO:
    # Unbuffered: what was written is in the file, and what failed is not tried again at some later write.
    return cast("BinaryIO", tempfile.TemporaryFile(dir=folder, prefix="voxbus-take-", buffering=0))


def _append(file: BinaryIO, content: bytes) -> int:
    """Write all of it at the end of a file; where it begins."""
    start = file.seek(0, 2)
    rest = memoryview(content)
    while rest:  # a disk that fills up takes a part first
        rest = rest[file.write(rest) :]
    return start
