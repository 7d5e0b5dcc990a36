"""What `make run` runs, in a folder of the test's own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests.environment import environment

_DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def _demo(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(_DEMO), "--out", str(folder / "out"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({"TMPDIR": str(folder)}),
        text=True,
    )


def test_the_demo_leaves_audio_and_tells_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "99-zh-old.wav").write_text("of an earlier demo")
    (tmp_path / "out" / "mine.txt").write_text("somebody's")
    with _demo(tmp_path) as process:
        output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) == 16
    assert "mine.txt" in files
    assert "01-zh-female1.wav" in files
    assert any("-yue-" in name for name in files)
    for name in files[:-1]:
        assert soundfile.info(tmp_path / "out" / name).duration > 1.0
    assert "24 verified" in output
    row = next(line for line in output.splitlines() if "24 verified" in line)
    requests, synthesised, collapsed = (int(cell) for cell in row.replace("│", " ").split()[:3])
    assert (requests, synthesised, collapsed) == (24, 13, 11)
    assert not list(tmp_path.glob("voxbus-demo-*"))


def test_a_stopped_demo_stops_its_stack(tmp_path: Path) -> None:
    with _demo(tmp_path) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("voxbus-demo-*/state.json")):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # the stack writes its state while it starts
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("voxbus-demo-*"))
    assert not _running_below(tmp_path)


def _running_below(folder: Path) -> list[str]:
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and int(entry.parent.name) != os.getpid():
            found.append(command)
    return found
