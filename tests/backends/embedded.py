"""The servers of `voxbus up --servers-only`, in a process of their own, on free loopback ports and a fresh folder."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from infra.embedded import launcher
from infra.embedded.endpoints import Endpoints, as_environment
from infra.settings import KafkaSettings, RedisSettings, S3Settings
from tests.backends.servers import BackendError, Servers
from tests.environment import environment

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
# A join on this broker waits half the session timeout, and tests join often.
_QUICK_JOIN = {"session_timeout_ms": "3000", "heartbeat_interval_ms": "600"}


def _ready_line(stdout: IO[str], log: Path) -> Endpoints:
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put("")  # end of file

    threading.Thread(target=read, daemon=True, name="voxbus-up-stdout").start()
    while True:
        try:
            line = lines.get(timeout=_START_TIMEOUT_S)
        except queue.Empty:
            raise BackendError(f"embedded servers not ready within {_START_TIMEOUT_S:g} s\n{_tail(log)}") from None
        if not line:
            raise BackendError(f"`voxbus up --servers-only` ended before it was ready\n{_tail(log)}")
        with suppress(ValidationError):
            return Endpoints.model_validate_json(line)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Start, wait for the ready line, and stop at the end.

    Raises:
        BackendError: not ready in time; carries the end of the log.
    """
    log = folder / "voxbus-up.log"
    # pytest ended by a signal runs no fixture's end; the launcher ties the servers' life to ours all the same.
    command = [sys.executable, launcher.__file__, str(os.getpid()), sys.executable]
    command += ["-c", "from infra.cli import main; main()", "up", "--servers-only", "--data-dir", str(folder / "data")]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment({"PYTHONUNBUFFERED": "1"}),
        )
    assert process.stdout is not None
    try:
        yield _servers(_ready_line(process.stdout, log))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _servers(ready: Endpoints) -> Servers:
    variables = as_environment(ready)

    def of(fragment: str) -> dict[str, str]:
        prefix = f"VOXBUS_{fragment}__"
        mine = ((name, value) for name, value in variables.items() if name.startswith(prefix))
        return {name.removeprefix(prefix).lower(): value for name, value in mine}

    kafka = KafkaSettings.model_validate(of("KAFKA") | _QUICK_JOIN)
    return Servers(kafka, RedisSettings.model_validate(of("REDIS")), S3Settings.model_validate(of("S3")))
