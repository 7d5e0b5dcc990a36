"""The blocks marked `<!-- run -->` on the pages, run in order against one embedded stack."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from infra.cli import voxbus
from infra.embedded import launcher
from infra.errors import UserError
from tests.documents import ROOT, Block, blocks
from tests.environment import environment

_START_TIMEOUT_S = 90.0
_PATIENCE_S = 20.0
_VOXBUS = [sys.executable, "-c", "from infra.cli import main; main()"]
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # of the Standard Webhooks' own examples

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `voxbus up` runs."""
    folder = tmp_path_factory.mktemp("docs")
    tied = [sys.executable, launcher.__file__, str(os.getpid()), *_VOXBUS]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*tied, "up"], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda stdout: lines.put(stdout.readline()), args=(process.stdout,), daemon=True).start()
    with closing(process.stdout):
        try:
            assert json.loads(lines.get(timeout=_START_TIMEOUT_S))["event"] == "ready", (folder / "up.log").read_text()
            yield folder
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert process.returncode == 0


def _run(block: Block) -> None:
    if block.language == "python":
        subprocess.run([sys.executable, "-c", block.text], env=environment(), timeout=100, check=True)
        return
    for program, *arguments in block.commands:
        # In this process: a command of its own would spend a second on imports.
        assert program == "voxbus"
        _ask(arguments)


def _ask(arguments: list[str]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            voxbus.main(list(arguments), standalone_mode=False)
            return
        except UserError:  # such as the status of a request that is still on its way to dedup
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def test_what_the_pages_show_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("VOXBUS_")]:
        monkeypatch.delenv(name)
    marked = [block for block in blocks() if block.mark == "run"]
    assert {"README.md", "docs/operations.md"} <= {block.page for block in marked}
    for block in sorted(marked, key=lambda block: block.page != "README.md"):
        _run(block)
    assert (folder / "hello.wav").read_bytes()[:4] == b"RIFF"
    assert (folder / "hello.mp3").stat().st_size > 1_000


def test_the_client_on_the_page_publishes_and_downloads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    [block] = [block for block in blocks() if block.mark == "run: client"]
    assert block.page == "producers/README.md"
    imports = (
        "import asyncio\nfrom pathlib import Path\n"
        "from producers import SpeechClient\nfrom producers.download import download\n"
    )
    source = f"{imports}async def main():\n{indent(block.text, '    ')}\nasyncio.run(main())"
    (folder / "hello.mp3").unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-c", source], env=environment(), timeout=100, check=False)
    assert done.returncode == 0
    assert (folder / "hello.mp3").stat().st_size > 1_000


def test_the_receiver_on_the_page_takes_ours_and_refuses_others() -> None:
    [block] = [block for block in blocks() if block.mark == "run: receiver"]
    namespace: dict[str, Any] = {}
    exec(compile(block.text, block.page, "exec"), namespace)
    body = (ROOT / "tests/contract/golden/RequestCompleted.json").read_bytes()
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(_SECRET).sign("msg_1", now, body.decode()),
    }
    assert namespace["completion_of"](body, headers, _SECRET)["type"] == "speech.completed"
    with pytest.raises(WebhookVerificationError):
        namespace["completion_of"](body.replace(b"cdn", b"bad"), headers, _SECRET)
