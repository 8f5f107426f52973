"""Keeps streams open and a trickle of everything else beside them, and keeps the books."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Final

from benchmarks.soak.answers import CUT, Answer, End, Outcome, judge
from benchmarks.soak.clients import Connection
from benchmarks.soak.faulty import Faulty
from benchmarks.soak.plans import Draw, Fault, Kind, Leave, Plan

#: Streams begin at this rate a second, until all slots are taken.
_RAMP: Final = 200
_TEXTS: Final = 200


@dataclass(frozen=True, slots=True)
class Trickle:
    """Requests a second, of each kind."""

    whole: float = 20.0
    big: float = 1.0
    unknown: float = 1.0
    wrong_key: float = 1.0
    health: float = 1.0


@dataclass
class Ledger:
    """What was asked and what came."""

    asked: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Faults that were ordered, by kind.
    faults: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    lost: int = 0
    doubled: int = 0
    unexpected: int = 0
    texts: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Something that nothing of ours explains. The first ones keep their words."""
        self.unexpected += 1
        if len(self.texts) < _TEXTS:
            self.texts.append(text)


@dataclass
class Load:
    """Asks the gateway. `open` is the number of streams now under way."""

    host: str
    port: int
    draw: Draw
    mock: Faulty
    ledger: Ledger = field(default_factory=Ledger)
    #: A connection is used again after an answer in this part of the cases.
    reuse: float = 0.5
    open: int = 0
    begun: float = field(default_factory=time.monotonic)
    _random: Random = field(default_factory=lambda: Random(11))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _stopping: bool = False

    def start(self, streams: int, trickle: Trickle) -> None:
        """Keep so many streams open, and the trickle beside them, until `stop`."""
        for slot in range(streams):
            self._task(self._slot(slot / _RAMP))
        draw = self.draw
        self._task(self._trickle(trickle.whole, draw.whole))
        for rate, kind in (
            (trickle.big, Kind.BIG),
            (trickle.unknown, Kind.UNKNOWN),
            (trickle.wrong_key, Kind.WRONG_KEY),
            (trickle.health, Kind.HEALTH),
        ):
            self._task(self._trickle(rate, lambda kind=kind: draw.other(kind)))  # type: ignore[misc]

    async def stop(self) -> None:
        """Every client leaves at once, in the middle of whatever it does."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_of(self, plans: list[Plan], concurrency: int) -> None:
        """Ask all of them, so many at a time."""
        waiting = iter(plans)

        async def worker() -> None:
            connection: Connection | None = None
            for plan in waiting:
                connection = await self.one(plan, connection)
            if connection is not None:
                connection.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())

    def _task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.ledger.problem(f"in the harness: {error!r}")

    async def _slot(self, wait: float) -> None:
        await asyncio.sleep(wait)
        connection: Connection | None = None
        while not self._stopping:
            connection = await self.one(self.draw.stream(), connection)

    async def _trickle(self, rate: float, draw: Callable[[], Plan]) -> None:
        while rate and not self._stopping:
            self._task(self._alone(draw()))
            await asyncio.sleep(self._random.uniform(0.5, 1.5) / rate)

    async def _alone(self, plan: Plan) -> None:
        connection = await self.one(plan, None)
        if connection is not None:
            connection.close()

    async def one(self, plan: Plan, connection: Connection | None) -> Connection | None:
        """Ask, judge, enter it in the books. The connection when it may be used again."""
        stream = plan.kind is Kind.STREAM
        if connection is None:
            try:
                connection = await Connection.open(self.host, self.port)
            except OSError as error:
                self._enter_problem(plan, f"no connection: {error}")
                await asyncio.sleep(0.5)  # a server that is gone is not to be hammered
                return None
        self.open += stream
        answer = Answer(plan)
        try:
            end, detail = await connection.ask(
                answer, f"{self.host}:{self.port}", self.mock.times.slow_first / 2
            )
        except BaseException:  # the run is over: what was read until now still counts
            connection.transport.abort()
            self._enter(plan, answer, Outcome(CUT, answer.trouble))
            raise
        finally:
            self.open -= stream
        self._enter(plan, answer, judge(plan, answer, end, detail))
        if plan.leave is not Leave.NEVER and end is End.LEFT:
            self.mock.client_left(plan.number)
        again = end is End.COMPLETE and answer.keep_alive and connection.usable
        if again and self._random.random() < self.reuse:
            return connection
        connection.close()
        return None

    def _enter(self, plan: Plan, answer: Answer, outcome: Outcome) -> None:
        ledger = self.ledger
        ledger.asked[plan.kind.value] += 1
        ledger.outcomes[outcome.kind] += 1
        ledger.chunks += answer.chunks
        ledger.lost += answer.lost
        ledger.doubled += answer.doubled
        if plan.fault is not Fault.NONE:
            ledger.faults[plan.fault.value] += 1
        if outcome.problem is not None:
            self._enter_problem(plan, outcome.problem)

    def _enter_problem(self, plan: Plan, text: str) -> None:
        self.ledger.problem(f"{time.monotonic() - self.begun:.1f} s: {plan}: {text}")
