"""Looking up names: a lookup has its own limit, is shared, and every answer given is judged."""

import asyncio
import socket
from ipaddress import ip_network

import pytest
from aiohttp.abc import ResolveResult

from notifier.resolver import CheckedResolver, Lookups, open_lookups
from notifier.targets import TargetRefusedError
from tests.notifier_names import Names
from tests.waiting import eventually

PUBLIC = "93.184.215.14"


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Silent(Names):
    """Never answers for names that begin with "dead"."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host.startswith("dead"):
            self.asked.append(host)
            await asyncio.Event().wait()
        return await super().resolve(host, port, family)


async def test_a_lookup_ends_before_its_attempt_would() -> None:
    lookups = open_lookups(0.3, Silent({}))
    with pytest.raises(OSError, match="no answer from the name server"):
        await lookups.resolve("dead.example", 443)


async def test_an_answer_is_kept_for_a_moment_and_a_failure_is_not() -> None:
    names, clock = Names({"a.example": [PUBLIC]}), Clock()
    lookups = Lookups(names, kept_s=2.0, clock=clock)
    for clock.now_s in (0.0, 1.9, 2.0):
        await lookups.resolve("a.example", 443)
    assert names.asked == ["a.example"] * 2
    for _ in range(2):
        with pytest.raises(OSError, match="not known"):
            await lookups.resolve("b.example", 443)
    assert names.asked.count("b.example") == 2


async def test_a_kept_answer_is_judged_for_each_who_asks() -> None:
    names = Names({"inside.example": ["10.1.0.7"]})
    lookups = Lookups(names)
    inside, outside = CheckedResolver(lookups, (ip_network("10.1.0.0/16"),)), CheckedResolver(lookups, ())
    assert await inside.resolve("inside.example", 443)
    with pytest.raises(TargetRefusedError, match="private"):
        await outside.resolve("inside.example", 443)
    assert names.asked == ["inside.example"]


async def test_a_name_server_that_hangs_is_asked_once() -> None:
    let_go = asyncio.Event()

    class Hanging(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            await let_go.wait()
            return found

    inner = Hanging({"slow.example": [PUBLIC]})
    lookups = Lookups(inner)
    asking = [asyncio.create_task(lookups.resolve("slow.example", 443)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    let_go.set()
    answers = await asyncio.gather(*asking[1:])
    assert inner.asked == ["slow.example"]
    assert {answer[0]["host"] for answer in answers} == {PUBLIC}


class Held(Names):
    """Answers at once, but for the names of one domain, which hold a thread each until let go."""

    def __init__(self, domain: str) -> None:
        super().__init__({})
        self.domain, self.let_go = domain, asyncio.Event()
        self.held = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host.endswith(self.domain):
            self.held += 1
            try:
                await self.let_go.wait()
            finally:
                self.held -= 1
        else:
            self.known[host] = [PUBLIC]
        return await super().resolve(host, port, family)


async def failure(lookups: Lookups, host: str) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        await lookups.resolve(host, 443)
    return str(caught.value)


async def test_a_silent_name_holds_one_thread_however_often_it_is_asked_for() -> None:
    names = Held("dead.example")
    lookups = Lookups(names, limit_s=0.05)
    assert await failure(lookups, "dead.example") == "no answer from the name server"
    assert {await failure(lookups, "dead.example") for _ in range(200)} == {"its name server has not answered yet"}
    assert names.held == 1
    names.let_go.set()
    await eventually(lambda: names.held == 0)
    assert await failure(lookups, "dead.example") == "not known"  # asked for anew


async def test_names_made_up_under_one_domain_hold_few_threads_and_delay_nobody() -> None:
    names = Held("dead.example")
    lookups = Lookups(names, limit_s=30)
    made_up = [asyncio.create_task(failure(lookups, f"n{n}.dead.example")) for n in range(200)]
    await eventually(lambda: sum(task.done() for task in made_up) == 192)
    assert names.held == 8
    for n in range(50):
        assert await asyncio.wait_for(lookups.resolve(f"n{n}.alive.test", 443), 1)
    names.let_go.set()
    ends = await asyncio.gather(*made_up)
    assert ends.count("too many names of its domain are being looked up") == 192


async def test_strangers_leave_room_for_names_that_led_somewhere() -> None:
    names, clock = Held(".dead"), Clock()
    lookups = Lookups(names, limit_s=30, clock=clock)
    await lookups.resolve("known.example", 443)
    silent = [asyncio.create_task(failure(lookups, f"n{n}.d{n}.dead")) for n in range(100)]
    await eventually(lambda: names.held == 48)
    clock.now_s = 300.0  # its answer is too old to be given again
    assert await asyncio.wait_for(lookups.resolve("known.example", 443), 1)
    assert await failure(lookups, "stranger.example") == "too many unknown names are being looked up"
    clock.now_s = 901.0
    assert await failure(lookups, "known.example") == "too many unknown names are being looked up"
    names.let_go.set()
    await asyncio.gather(*silent)


async def test_closing_gives_up_what_hangs() -> None:
    names = Held("dead.example")
    lookups = Lookups(names, limit_s=0.01)
    await failure(lookups, "dead.example")
    await lookups.close()
    await eventually(lambda: names.held == 0)
