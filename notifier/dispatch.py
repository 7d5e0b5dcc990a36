"""Shares connections among endpoints, so that one that hangs costs the others nothing.

Deliveries queue per endpoint and take turns; what one endpoint may take, `lineup` says. What finds no place, could not
start soon, or meets an open circuit, is put off to the retry topics instead of waiting here.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from aiokafka import TopicPartition

from notifier import metrics
from notifier.attempt import Answer, AttemptResult
from notifier.delivery import Delivery
from notifier.endpoint import Breaker, EndpointLimits
from notifier.errand import Errand, Return, Settlement
from notifier.lineup import Lineup, Lineups, Shares
from notifier.returns import Returns
from notifier.route import Route
from notifier.targets import EndpointDisabledError, Target, TargetRefusedError

# Attempts that were answered and whose event is on its way: what a kill repeats. A slow bus slows deliveries then:
# with 128, at 1,280 a second when it takes 0.1 s for an event.
_MAX_UNNOTED = 128
# By then it is heard that an endpoint was enabled again: asked for every second, and a busy bus takes its time.
_HEARD_S = 3.0
# What is answered when a drain's time is up is noted within this, while the group still waits.
_NOTING_S = 5.0
# Until a line that had its share of the connections is looked at again, when none of its own attempts ended before.
_SHARE_PAUSE_S = 0.1


_Lineup = Lineup[tuple[Errand, Target]]


class Dispatcher:
    """Runs attempts within the bounds. `submit` never waits."""

    def __init__(
        self,
        send: Callable[[Delivery, Target], Awaitable[AttemptResult]],
        settlement: Settlement,
        *,
        route: Callable[[Delivery], Route],
        limits: EndpointLimits,
        max_connections: int = 512,
        max_waiting: int = 4_000,
    ) -> None:
        self._send = send
        self._settlement = settlement
        self._route = route
        self._shares = Shares(max_connections, max_waiting)
        self._lineups: Lineups[tuple[Errand, Target]] = Lineups(limits)
        self._round: deque[_Lineup] = deque()
        self._running = 0
        self._unnoted = 0
        self._queued = 0
        self._tasks: dict[asyncio.Task[None], TopicPartition] = {}
        self._sending: dict[asyncio.Task[None], tuple[_Lineup, Errand]] = {}  # of these tasks, what is not answered yet
        self._returns = Returns(settlement.give_back, self._fail, hurry_at=max_waiting)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def in_hand(self) -> int:
        """Deliveries queued, running, being settled, or going back."""
        return self._queued + len(self._tasks) + len(self._returns)

    @property
    def going_back(self) -> int:
        """Deliveries on their way back to the bus without an attempt."""
        return len(self._returns)

    async def watch(self) -> None:
        """Wait for ever; raise when an outcome could not be published, since then nothing may be taken any more."""
        await asyncio.shield(self._failed)

    def submit(self, errand: Errand) -> None:
        """Take a delivery whose attempt is due."""
        try:
            route = self._route(errand.delivery)
        except TargetRefusedError as error:
            if isinstance(error, EndpointDisabledError) and not errand.delivery.progress.asked_again:
                self._ask_again(errand)
                return
            refused = AttemptResult(Answer.REFUSED, error=str(error))
            self._run(errand, self._settlement.settle(errand, "", refused))
            return
        now = time.monotonic()
        lineup = self._lineups.of(route.line, route.rate_per_s, now)
        if lineup.state.breaker(now) is Breaker.OPEN:
            self._put_off(lineup, errand, "circuit open", now)
        elif not self._shares.may_queue(lineup, self._queued, now):
            self._put_off(lineup, errand, "queue full", now)
        else:
            lineup.queue.append((errand, route.target))
            self._queued += 1
            self._list(lineup)
            self._pump()

    def move_on(self, errand: Errand, due_ms: int, *, for_room: bool = False) -> None:
        """Let a delivery whose attempt is not due, or in hand by a copy, wait (further) on the bus."""
        self._returns.add(Return(errand, due_ms, begun=False, for_room=for_room))

    def line_of(self, delivery: Delivery) -> str | None:
        """Whose room this one waits for; None when it waits for its time, or has no way."""
        if not delivery.progress.for_room:
            return None
        try:
            return self._route(delivery).line
        except TargetRefusedError:
            return None

    def wanted(self, line: str) -> int:
        """How many of those that wait for room in this line it can take now, before they are due."""
        lineup = self._lineups.known(line)
        return self._shares.wanted(lineup, self._queued, time.monotonic()) if lineup is not None else 0

    def _run(self, errand: Errand, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks[task] = errand.partition
        task.add_done_callback(self._ended)
        return task

    async def drain(self, partitions: Iterable[TopicPartition], timeout_s: float) -> list[Errand]:
        """Forget what is queued of these partitions, and wait until what runs of them has ended, or the time is up.

        Attempts that have no answer by then are given up: answered and noted later, when another member has learnt what
        was noted and has made the attempt anew, it would be delivered twice. What is answered is noted in any case.

        Returns:
            What was forgotten of what the ledger holds in hand.
        """
        gone = frozenset(partitions)
        forgotten: list[Errand] = []
        for lineup in self._lineups:
            forgotten += [errand for errand, _ in lineup.take_out(lambda entry: entry[0].partition in gone)]
        self._queued -= len(forgotten)
        forgotten += [one.errand for one in self._returns.take_out(gone) if one.begun]
        running: set[asyncio.Future[None]] = {task for task, partition in self._tasks.items() if partition in gone}
        if (returning := self._returns.under_way(gone)) is not None:
            running.add(returning)
        if not running:
            return forgotten
        _, running = await asyncio.wait(running, timeout=timeout_s)
        hanging = [task for task in self._sending if task in running]
        forgotten += [self._give_up(task) for task in hanging]
        if running:
            await asyncio.wait(running, timeout=_NOTING_S)
        self._pump()
        return forgotten

    def _give_up(self, task: asyncio.Task[None]) -> Errand:
        lineup, errand = self._sending[task]
        self._sent(task)
        lineup.state.given_up()
        task.cancel()
        self._list(lineup)
        return errand

    async def close(self) -> None:
        """Cancel what still runs; nothing starts any more."""
        for lineup in self._lineups:
            if lineup.timer is not None:
                lineup.timer.cancel()
        self._round.clear()
        await self._returns.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failed.done():
            self._failed.exception()

    def observe(self) -> None:
        """Bring the gauges up to date."""
        now = time.monotonic()
        states = Counter(lineup.state.breaker(now) for lineup in self._lineups)
        for state in Breaker:
            metrics.BREAKERS.labels(state).set(states[state])
        metrics.QUEUED.set(self._queued)
        metrics.RUNNING.set(self._running)

    def _list(self, lineup: _Lineup) -> None:
        if not lineup.listed and lineup.queue:
            lineup.listed = True
            self._round.append(lineup)

    def _list_later(self, lineup: _Lineup, pause_s: float) -> None:
        """Look at it again after a pause, or before when there is reason to; one timer for each, the earliest."""

        def due() -> None:
            lineup.timer = None
            self._list(lineup)
            self._pump()

        loop = asyncio.get_running_loop()
        if lineup.timer is not None:
            if lineup.timer.when() <= loop.time() + pause_s:
                return
            lineup.timer.cancel()
        lineup.timer = loop.call_later(pause_s, due)

    def _pump(self) -> None:
        """Start what may start: one of each endpoint in turn, while there are connections."""
        now = time.monotonic()
        while self._round and self._running < self._shares.max_connections and self._unnoted < _MAX_UNNOTED:
            lineup = self._round.popleft()
            lineup.listed = False
            if not lineup.queue or lineup.running >= lineup.state.window(now):
                continue  # comes back when an attempt of its own ends
            pause_s = lineup.state.pause_s(now)
            if not self._shares.may_start(lineup, self._running):
                pause_s = max(pause_s, _SHARE_PAUSE_S)
            if pause_s > 0:
                self._list_later(lineup, pause_s)
                continue
            lineup.state.started(now)
            errand, target = lineup.queue.popleft()
            self._queued -= 1
            self._running += 1
            lineup.running += 1
            self._sending[self._run(errand, self._attempt(lineup, errand, target))] = (lineup, errand)
            self._list(lineup)

    async def _attempt(self, lineup: _Lineup, errand: Errand, target: Target) -> None:
        result = await self._send(errand.delivery, target)
        self._sent(asyncio.current_task())
        now = time.monotonic()
        metrics.ATTEMPTS.labels(result.answer).inc()
        metrics.ATTEMPT_SECONDS.observe(result.latency_s)
        opened = lineup.state.note(result, now)
        for other, _target in lineup.take_out(lambda _: True) if opened else lineup.excess(now):
            self._queued -= 1
            self._put_off(lineup, other, "circuit open" if opened else "queue full", now)
        self._list(lineup)
        self._pump()
        self._unnoted += 1
        try:
            await self._settlement.settle(errand, target.endpoint, result)
        finally:
            self._unnoted -= 1
        self._pump()

    def _sent(self, task: asyncio.Task[None] | None) -> None:
        if task in self._sending:
            lineup, _errand = self._sending.pop(task)
            lineup.running -= 1
            self._running -= 1

    def _put_off(self, lineup: _Lineup, errand: Errand, reason: str, now: float) -> None:
        metrics.PUT_OFF.labels(reason).inc()
        delay_s = lineup.state.put_off_s(len(lineup.queue), now)
        self._returns.add(Return(errand, int((time.time() + delay_s) * 1000), begun=True, for_room=True))

    def _ask_again(self, errand: Errand) -> None:
        metrics.PUT_OFF.labels("endpoint disabled").inc()
        asking = replace(errand, delivery=errand.delivery.to_ask_again())
        self._returns.add(Return(asking, int((time.time() + _HEARD_S) * 1000), begun=True))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._sent(task)  # when it could not be said, as sending failed or was cancelled
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
