"""The servers of `voxbus up --servers-only`, in a process of their own, on free loopback ports and a fresh folder."""

import ctypes
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from infra.settings import KafkaSettings, RedisSettings, S3Settings
from tests.backends.servers import BackendError, Servers
from tests.environment import environment

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    # pytest ended by SIGTERM or SIGKILL runs no fixture's end; the servers must not outlive it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ready_line(stdout: IO[str], log: Path) -> dict[str, Any]:
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
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "ready":
            return event


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Start, wait for the ready line, and stop at the end.

    Raises:
        BackendError: not ready in time; carries the end of the log.
    """
    log = folder / "voxbus-up.log"
    command = [sys.executable, "-c", "from infra.cli import main; main()"]
    command += ["up", "--servers-only", "--data-dir", str(folder / "data"), "--port", "0"]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment({"PYTHONUNBUFFERED": "1"}),
            preexec_fn=_die_with_parent,
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


def _servers(ready: dict[str, Any]) -> Servers:
    kafka = KafkaSettings(
        bootstrap_servers=ready["kafka"],
        enable_idempotence=False,
        fetch_max_wait_ms=20,
        # A join on this broker waits half the session timeout.
        session_timeout_ms=3_000,
        heartbeat_interval_ms=600,
    )
    s3 = S3Settings(
        endpoint_url=ready["s3"],
        access_key_id=ready["s3_access_key_id"],
        secret_access_key=ready["s3_secret_access_key"],
    )
    return Servers(kafka, RedisSettings.model_validate({"url": ready["redis"]}), s3)
