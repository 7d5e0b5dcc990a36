import os
import stat
import subprocess
import sys

import pytest

from infra.embedded import files
from infra.embedded.credentials import s3_credentials, signing_secret
from infra.embedded.files import DataDirectory, last_lines, open_log, trim_log, write_atomically
from infra.errors import UserError


@pytest.fixture
def directory(tmp_path):
    return DataDirectory.prepared(tmp_path / "data")


def test_two_stacks_over_one_directory_are_refused_with_the_way_out(directory):
    refused = pytest.raises(UserError, match=rf"already running over .*\(process {os.getpid()}\).*voxbus ps")
    with directory.locked():
        assert directory.in_use()
        with refused, directory.locked():
            pass
    assert not directory.in_use()


def test_the_lock_of_a_killed_supervisor_is_awaited_while_its_servers_end(directory):
    code = (
        "import os,sys,subprocess;from pathlib import Path;from infra.embedded.files import DataDirectory\n"
        "with DataDirectory(Path(sys.argv[1])).locked() as lock:\n"
        "    server=subprocess.Popen(['sleep','0.7'],pass_fds=(lock,),stdout=subprocess.DEVNULL)\n"
        "    print(server.pid,flush=True); os.kill(os.getpid(),9)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code, str(directory.root)], stdout=subprocess.PIPE)
    supervisor.communicate(timeout=20)
    assert directory.in_use(), "the server still has its data open"
    with directory.locked():
        pass


def test_secrets_are_made_once_and_only_the_owner_reads_them(directory):
    first, secret = s3_credentials(directory.secrets / "s3.json"), signing_secret(directory.signing_secret)
    assert s3_credentials(directory.secrets / "s3.json") == first
    assert signing_secret(directory.signing_secret) == secret
    assert secret.startswith("whsec_")
    assert first.secret_access_key not in repr(first)
    for path in directory.secrets.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--data-dir"):
        DataDirectory.prepared(tmp_path / "file" / "data")


def test_logs_are_put_aside_past_their_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOG_LIMIT_BYTES", 10)
    log = tmp_path / "x.log"
    log.write_text("a long first life")
    os.close(open_log(log))
    assert log.read_text() == ""
    assert (tmp_path / "x.log.1").read_text() == "a long first life"


def test_a_running_log_is_trimmed_under_its_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOG_LIMIT_BYTES", 10)
    log = tmp_path / "x.log"
    descriptor = open_log(log)
    os.write(descriptor, b"more than ten bytes")
    trim_log(log)
    os.write(descriptor, b"on")
    os.close(descriptor)
    assert log.read_text() == "on"


def test_last_lines_are_printable(tmp_path):
    (tmp_path / "x.log").write_text("one\n\n\x1b[31mtwo\x07\nthree\n")
    assert last_lines(tmp_path / "x.log", 2) == ["[31mtwo", "three"]
    assert last_lines(tmp_path / "none.log") == []


def test_a_file_is_replaced_whole(tmp_path):
    write_atomically(tmp_path / "f", "old")
    write_atomically(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "new"
