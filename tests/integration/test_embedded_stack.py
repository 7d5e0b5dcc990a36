"""The embedded stack as a whole, in a process of its own, with small stand-ins for the stages."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis

from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

# Ready at once, a grandchild beside it, drains for a moment on SIGTERM and says so.
FAKE_STAGE = """
import http.server, os, pathlib, signal, subprocess, sys, threading, time
notes = pathlib.Path(os.environ["FAKE_NOTES"])
name = os.environ["FAKE_NAME"]
if name == os.environ.get("FAKE_DIES"):
    print("cannot find my voice", file=sys.stderr, flush=True)
    sys.exit(3)
grandchild = subprocess.Popen(["sleep", "1000"])
with notes.open("a") as file:
    print("start", name, os.getpid(), grandchild.pid, file=file)

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass

def drain(*_):
    time.sleep(0.1)
    with notes.open("a") as file:
        print("drained", name, file=file)
    os._exit(0)

signal.signal(signal.SIGTERM, drain)
http.server.HTTPServer(("127.0.0.1", int(os.environ["VOXBUS_HEALTH__PORT"])), Ready).serve_forever()
"""

DRIVER = """
import asyncio, os, sys
from pathlib import Path
from infra.cli import main
from infra.embedded import cli
from infra.embedded.stages import Stage, StageOptions
def stages(running, options):
    return [Stage(name, "fake_stage", settings={"FAKE_NAME": name}) for name in ("one", "two")]
def run():
    asyncio.run(cli.run_up(Path(sys.argv[1]), StageOptions(), plan_stages=stages))
import infra.cli
infra.cli.voxbus = lambda **_: run()
main()
"""


class Up:
    """One `voxbus up` with two stand-in stages."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.data = folder, folder / "data"
        self.shared_ready: dict = {}
        self.notes = folder / "notes"
        (folder / "fake_stage.py").write_text(FAKE_STAGE)
        environment = os.environ | {"PYTHONPATH": str(folder), "FAKE_NOTES": str(self.notes)} | env
        with (folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(self.data)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    async def ready(self):
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, f"ended with {self.process.wait(10)}: {self.stderr}"
        return json.loads(line)

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def children(self) -> dict:
        state = json.loads((self.data / "state.json").read_text())
        return {child["name"]: child for child in state["children"]}

    def all_pids(self) -> list[int]:
        pids = [child["pid"] for child in self.children().values()]
        for line in self.notes.read_text().splitlines():
            if line.startswith("start"):
                pids += [int(pid) for pid in line.split()[2:]]
        return sorted(set(pids))

    async def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def runs(pid: int) -> bool:
    """Whether it is there and not a zombie somebody has still to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def up(tmp_path):
    started = []

    def start(**env) -> Up:
        started.append(Up(tmp_path, **env))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A stack that outlives the tests that only disturb it."""
    stack = Up(tmp_path_factory.mktemp("shared"))
    stack.shared_ready = asyncio.run(stack.ready())
    yield stack
    stack.process.terminate()
    assert stack.process.wait(30) == 0
    stack.close()


@asynccontextmanager
async def producer(kafka: str):
    client = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=False)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def read(kafka: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest", fetch_max_wait_ms=20)
    await consumer.start()
    try:
        async with asyncio.timeout(15):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_ctrl_c_drains_stages_first_in_reverse_and_exits_0(up, tmp_path):
    stack = up()
    ready = await stack.ready()
    assert ready["event"] == "ready"
    assert json.loads((stack.data / "endpoints.json").read_text()) == ready
    pids = stack.all_pids()
    assert len(pids) == 3 + 2 * 2
    assert await stack.end(signal.SIGINT) == 0
    assert [line for line in stack.notes.read_text().splitlines() if "drained" in line] == [
        "drained two",
        "drained one",
    ]
    assert not [pid for pid in pids if runs(pid)]
    assert not (stack.data / "endpoints.json").exists()
    assert "Traceback" not in stack.stderr


async def test_after_kill_9_of_everything_the_next_start_goes_on(up):
    stack = up()
    ready = await stack.ready()
    sent = [b"message %d" % number for number in range(200)]
    async with producer(ready["kafka"]) as client:
        for value in sent:
            await client.send("kept", value, partition=0)
        await client.flush()
    async with Redis.from_url(ready["redis"]) as cache:
        await cache.set("kept", "yes")
        await asyncio.to_thread(time.sleep, 1.1)  # appendfsync everysec
    pids = stack.all_pids()
    stack.process.kill()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    stack.process.wait(10)

    again = await up().ready()
    assert {name: again[name] for name in ("kafka", "redis", "s3")} == {
        name: ready[name] for name in ("kafka", "redis", "s3")
    }, "ports are remembered"
    assert await read(again["kafka"], "kept", len(sent)) == sent
    async with Redis.from_url(again["redis"]) as cache:
        assert await cache.get("kept") == b"yes"


async def test_nothing_outlives_a_killed_supervisor(up):
    stack = up()
    await stack.ready()
    pids = stack.all_pids()
    assert all(runs(pid) for pid in pids)
    stack.process.kill()
    await eventually(lambda: not [pid for pid in pids if runs(pid)], 2.0, "children and grandchildren are gone")


@pytest.mark.parametrize("name", ["redis", "tansu", "seaweedfs"])
async def test_a_killed_server_comes_back_over_its_data(shared, name):
    stack, ready, topic = shared, shared.shared_ready, f"kept-{name}"
    async with producer(ready["kafka"]) as client:
        await client.send_and_wait(topic, b"before", partition=0)
    before = stack.children()[name]
    os.kill(before["pid"], signal.SIGKILL)

    def back():
        now = stack.children()[name]
        return now["state"] == "ready" and now["pid"] != before["pid"]

    await eventually(back, 20.0, f"{name} is back")
    assert stack.children()[name]["restarts"] == 1
    async with producer(ready["kafka"]) as client:
        await client.send_and_wait(topic, b"after", partition=0)
    assert await read(ready["kafka"], topic, 2) == [b"before", b"after"]


async def test_a_killed_stage_is_started_again_and_what_it_left_is_gone(shared):
    stack = shared
    before = stack.children()["one"]["pid"]
    grandchild = next(
        int(line.split()[3]) for line in stack.notes.read_text().splitlines() if f" one {before} " in line
    )
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: stack.children()["one"]["pid"] not in {before, None}, 10.0)
    assert not runs(grandchild)
    assert "one        was killed by signal 9; starting it again" in stack.stderr


async def test_what_keeps_dying_ends_the_stack_by_name_with_its_last_words(up):
    stack = up(FAKE_DIES="two")
    assert await asyncio.to_thread(stack.process.wait, 60) == 1
    assert "voxbus: two died 5 times within 60 s, last because it exited with code 3" in stack.stderr
    assert str(stack.data / "logs" / "two.log") in stack.stderr
    assert "cannot find my voice" in stack.stderr
    assert "drained one" in stack.notes.read_text()
    assert "Traceback" not in stack.stderr


async def test_a_second_up_over_the_same_directory_is_refused(shared):
    command = [str(Path(sys.executable).with_name("voxbus")), "up", "--data-dir", str(shared.data)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert second.returncode == 1
    assert second.stdout == ""
    assert "a stack is already running over" in second.stderr
    assert f"process {shared.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert (shared.data / "endpoints.json").exists()


async def test_a_taken_port_is_left_to_its_owner(up):
    first = up()
    ready = await first.ready()
    assert await first.end() == 0
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(ready["kafka"].rpartition(":")[2])))
        other.listen()
        again = await up().ready()
    assert again["kafka"] != ready["kafka"]
    assert again["redis"] == ready["redis"]


async def test_stopping_while_it_starts_leaves_nothing(up):
    stack = up()
    await eventually((stack.data / "state.json").exists, 20.0)
    assert await stack.end(signal.SIGINT) == 0
    assert {child["state"] for child in stack.children().values()} == {"stopped"}
    assert "Traceback" not in stack.stderr


async def test_ps_shows_the_children(shared):
    command = [str(Path(sys.executable).with_name("voxbus")), "ps", "--data-dir", str(shared.data)]
    await eventually(lambda: {child["state"] for child in shared.children().values()} == {"ready"}, 20.0)
    shown = json.loads((await asyncio.to_thread(subprocess.run, [*command, "--json"], stdout=subprocess.PIPE)).stdout)
    assert shown["supervisor"] == shared.process.pid
    assert [child["stage"] for child in shown["children"]] == ["seaweedfs", "redis", "tansu", "one", "two"]
    assert all(child["state"] == "ready" and child["uptime_s"] > 0 for child in shown["children"])
    assert shown["audio_topic"]["objects"] > 0
    table = (await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, text=True)).stdout
    assert "seaweedfs" in table
    assert str(shared.data / "logs") in table


async def test_ps_without_a_stack_says_how_to_start_one(tmp_path):
    command = [str(Path(sys.executable).with_name("voxbus")), "ps", "--data-dir", str(tmp_path / "none")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"voxbus: no running stack found at {tmp_path / 'none'}: start one with `voxbus up`\n"
