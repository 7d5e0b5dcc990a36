"""The data directory of one embedded stack: where things are, who holds it, and how files in it are written."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.errors import UserError

LOG_LIMIT_BYTES = 8 * 1024 * 1024
_LOCK_PATIENCE_S = 5.0


def write_atomically(path: Path, text: str, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write so that a reader sees the old or the new content, never a part; after a power cut too if `durable`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    draft.replace(path)


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Paths under one data directory."""

    root: Path

    @classmethod
    def prepared(cls, root: Path) -> "DataDirectory":
        """Create what is missing; only the owner may look inside.

        Raises:
            UserError: it cannot be created or written.
        """
        directory = cls(root.absolute())
        try:
            for path in (directory.root, directory.logs, directory.secrets):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot use {root} as data directory: {error.strerror}; choose one with --data-dir"
            ) from None
        return directory

    @property
    def logs(self) -> Path:
        """Folder of `NAME.log`, one for each child."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Folder of generated credentials, mode 0600 each."""
        return self.root / "secrets"

    @property
    def signing_secret(self) -> Path:
        """The webhooks' secret."""
        return self.secrets / "signing_secret"

    @property
    def ports(self) -> Path:
        """Remembered ports."""
        return self.root / "ports.json"

    @property
    def endpoints(self) -> Path:
        """Where the running stack listens; see `infra.embedded.endpoints`."""
        return self.root / "endpoints.json"

    @property
    def state(self) -> Path:
        """What `voxbus ps` shows."""
        return self.root / "state.json"

    @property
    def lock_file(self) -> Path:
        """Locked while a supervisor or one of its servers lives."""
        return self.root / "lock"

    def log(self, name: str) -> Path:
        """Log of one child."""
        return self.logs / f"{name}.log"

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory while the block runs.

        Yields:
            The lock's file descriptor. The servers inherit it, so that a directory whose servers still end after a
            `kill -9` of their supervisor is not opened a second time.

        Raises:
            UserError: another stack runs here.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take(descriptor, self)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def in_use(self) -> bool:
        """Whether a stack runs here."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _take(descriptor: int, directory: DataDirectory) -> None:
    until = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _pid(os.pread(descriptor, 32, 0))
            # A holder that is gone leaves servers that die within moments; one that lives keeps the directory.
            if holder is None or is_alive(holder) or time.monotonic() > until:
                raise UserError(
                    f"a stack is already running over {directory.root}"
                    + (f" (process {holder})" if holder else "")
                    + "; see it with `voxbus ps`, end it with Ctrl-C or `kill`, or use another --data-dir"
                ) from None
            time.sleep(0.05)
        else:
            return


def _pid(content: bytes) -> int | None:
    return int(content) if content.strip().isdigit() else None


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def open_log(path: Path) -> int:
    """Open a child's log for appending; past its bound the old one is put aside as `NAME.log.1` first.

    Returns:
        A file descriptor to hand to the child and close.
    """
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def trim_log(path: Path) -> None:
    """Put a log that outgrew its bound aside while its writer goes on (children append, so they go on at its start)."""
    try:
        if path.stat().st_size <= LOG_LIMIT_BYTES:
            return
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except FileNotFoundError:
        return


def last_lines(path: Path, count: int = 12) -> list[str]:
    """The end of a log, control characters taken out."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = ["".join(char for char in line if char.isprintable()) for line in text.splitlines()]
    return [line for line in lines if line.strip()][-count:]
