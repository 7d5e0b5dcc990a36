"""A whole embedded stack for tests of the gateway, as a process of its own."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from infra.embedded import launcher
from tests.environment import environment

VOXBUS = [sys.executable, "-c", "from infra.cli import main; main()"]
_START_TIMEOUT_S = 90.0


@contextmanager
def running_stack(folder: Path, *options: str, **settings: str) -> Iterator[Path]:
    """`voxbus up`, until the block ends.

    Args:
        folder: for its data and its log.
        options: of `voxbus up`.
        settings: environment variables.

    Yields:
        Its data directory.
    """
    tied = [sys.executable, launcher.__file__, str(os.getpid()), *VOXBUS]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*tied, "up", "--data-dir", str(folder / "data"), *options],
            env={**environment(), **settings},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda stdout: lines.put(stdout.readline()), args=(process.stdout,), daemon=True).start()
    with closing(process.stdout):
        try:
            assert lines.get(timeout=_START_TIMEOUT_S), (folder / "up.log").read_text()
            yield folder / "data"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
