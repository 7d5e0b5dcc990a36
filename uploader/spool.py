"""The samples of unfinished takes: in memory while they are small, in temporary files when not.

Files are unlinked as soon as they are made, so that nothing is left behind however the process ends; what was in
them is read again from the bus. Methods may block on the disk: call them from a thread. They may be called from several
threads at once.
"""

import tempfile
import threading
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import numpy.typing as npt

from uploader.settings import SpoolSettings

Samples = npt.NDArray[np.int16]
"""Mono PCM, shape (n,), little-endian int16; possibly a view of a file."""

_SAMPLE = np.dtype("<i2")


class SpoolError(Exception):
    """A take cannot be kept; the message says why."""


@dataclass(slots=True)
class _Entry:
    """One take: chunks in memory, or their places (start, length in bytes) in a file, in order of arrival."""

    memory: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    file: IO[bytes] | None = None
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
            SpoolError: the take is too large, or the disk takes no more; nothing of the take is kept then.
        """
        with self._lock:
            entry = self._entries.setdefault(take_id, _Entry())
            try:
                self._keep(entry, index, pcm)
            except OSError as error:
                self._forget(take_id)
                raise SpoolError(f"the spool cannot write: {error.strerror}") from None
            if entry.size > self._settings.take_bytes:
                self._forget(take_id)
                raise SpoolError(f"the take is larger than {self._settings.take_bytes} bytes")

    def samples(self, take_id: str) -> Samples:
        """All samples in order of their index; a view of the file when they are there.

        Valid until the array is let go, also after `discard`.

        Raises:
            SpoolError: a file cannot be read.
        """
        with self._lock:
            entry = self._entries.get(take_id, _Entry())
            try:
                return _from_file(entry) if entry.file is not None else _from_memory(entry)
            except OSError as error:
                raise SpoolError(f"the spool cannot read: {error.strerror}") from None

    def discard(self, take_id: str) -> None:
        """Let a take go; unknown ones too."""
        with self._lock:
            self._forget(take_id)

    def close(self) -> None:
        """Let everything go."""
        with self._lock:
            for take_id in list(self._entries):
                self._forget(take_id)

    def _keep(self, entry: _Entry, index: int, pcm: bytes) -> None:
        if index in entry.memory or index in entry.places:
            return
        if entry.file is not None:
            self._write(entry, index, pcm)
        else:
            entry.memory[index] = pcm
            self._memory += len(pcm)
        entry.size += len(pcm)
        if entry.file is None and entry.size > self._settings.take_memory_bytes:
            self._spill(entry)
        while self._memory > self._settings.memory_bytes:
            self._spill(max((e for e in self._entries.values() if e.memory), key=lambda e: e.size))

    def _spill(self, entry: _Entry) -> None:
        if entry.file is None:
            # The entry owns the file until `_forget`.
            entry.file = tempfile.TemporaryFile(dir=self._settings.folder, prefix="voxbus-take-")  # noqa: SIM115
        for index, pcm in entry.memory.items():
            self._write(entry, index, pcm)
            self._memory -= len(pcm)
        entry.memory.clear()

    def _write(self, entry: _Entry, index: int, pcm: bytes) -> None:
        assert entry.file is not None
        start = entry.file.seek(0, 2)
        entry.file.write(pcm)
        entry.file.flush()
        entry.places[index] = (start, len(pcm))
        self._disk += len(pcm)

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


def _from_file(entry: _Entry) -> Samples:
    assert entry.file is not None
    ordered = [entry.places[index] for index in sorted(entry.places)]
    starts = [start for start, _ in ordered]
    if starts == sorted(starts):
        return np.memmap(entry.file, dtype=_SAMPLE, mode="r")
    with tempfile.TemporaryFile(dir=None) as in_order:
        for start, length in ordered:
            entry.file.seek(start)
            in_order.write(entry.file.read(length))
        in_order.flush()
        return np.memmap(in_order, dtype=_SAMPLE, mode="r")
