"""Signals become one event, deadlines are shared, a failed part ends the rest."""

import asyncio
import signal
import subprocess
import sys

import pytest

from infra.lifecycle import Deadline, TaskFailedError, background, run_until_stopped
from tests.waiting import eventually

_PROGRAM = """
import asyncio
from infra.lifecycle import stop_on_signals

async def main():
    stop = asyncio.Event()
    with stop_on_signals(stop):
        print("waiting", flush=True)
        await stop.wait()
        print("draining", flush=True)
        if {slow}:
            await asyncio.sleep(60)
    print("done", flush=True)

asyncio.run(main())
"""


def _start(*, slow: bool) -> subprocess.Popen[str]:
    program = _PROGRAM.format(slow=slow)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_program_end_by_itself(number: signal.Signals) -> None:
    with _start(slow=False) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "draining\ndone\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_a_slow_drain(number: signal.Signals) -> None:
    with _start(slow=True) as process:
        assert process.stdout is not None
        process.send_signal(number)
        assert process.stdout.readline() == "draining\n"
        # Of the other kind: an operator's Ctrl-C after a supervisor's SIGTERM counts.
        second = signal.SIGINT if number is signal.SIGTERM else signal.SIGTERM
        process.send_signal(second)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == -second
    assert "done" not in output


def test_a_deadline_is_one_budget() -> None:
    deadline = Deadline(10.0)
    first = deadline.remaining_s
    assert 9.0 < first <= 10.0
    assert deadline.remaining_s <= first
    assert not deadline.passed
    over = Deadline(10.0, started=deadline.started - 11.0)
    assert (over.remaining_s, over.passed) == (0.0, True)


async def test_stop_ends_the_tasks_and_nothing_is_raised() -> None:
    stop, ended = asyncio.Event(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def stopper() -> None:
        await asyncio.sleep(0)
        stop.set()
        await asyncio.Event().wait()

    await asyncio.wait_for(run_until_stopped(stop, work=work(), stopper=stopper()), 5)
    assert ended == [True]


async def test_a_failed_task_ends_the_others_and_is_named() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("why")

    with pytest.raises(TaskFailedError, match="broken") as caught:
        await asyncio.wait_for(run_until_stopped(asyncio.Event(), work=work(), broken=broken()), 5)
    assert isinstance(caught.value.__cause__, ValueError)
    assert ended == [True]


async def test_a_task_that_ends_early_is_a_failure() -> None:
    async def short() -> None:
        await asyncio.sleep(0)

    with pytest.raises(TaskFailedError, match="short"):
        await asyncio.wait_for(run_until_stopped(asyncio.Event(), short=short()), 5)


async def test_background_work_ends_with_the_block() -> None:
    ticks = []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async with background(tick()):
        await eventually(lambda: len(ticks) > 2, 5, "ticks")
    count = len(ticks)
    await asyncio.sleep(0)
    assert len(ticks) == count
