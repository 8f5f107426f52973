"""The loops that send a step's requests: closed (so many at a time) and open (so many a second)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from server.loadtest import arrivals
from server.loadtest.plan import Ends, Load
from server.loadtest.sample import Failure, Sample

#: Half of what timers are rounded to, in seconds: so much more, and they are never early.
_ROUNDING: Final = 0.0005


class Call(Protocol):
    """Sends request number `index`, due at `due` (now if None). It never raises for a failure."""

    def __call__(self, index: int, due: float | None = None) -> Awaitable[Sample]: ...


@dataclass
class Tally:
    """A step while it runs, for the progress line; its samples when it is over."""

    start: float
    samples: list[Sample] = field(default_factory=list)
    begun: int = 0
    in_flight: int = 0
    failed: int = 0
    #: Output tokens of whole answers.
    tokens: int = 0
    first_failure: Failure | None = None
    #: Begun, and not over when the step was stopped; they count nowhere.
    cut: int = 0
    #: The clock when all was over.
    end: float = 0.0
    #: Stopped, since nothing but failures came.
    hopeless: bool = False

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        self.samples.append(sample)
        if sample.failure is None:
            self.tokens += sample.tokens or 0
            return
        self.failed += 1
        self.first_failure = self.first_failure or sample.failure


@dataclass
class Driver:
    """Runs steps. `numbers` are the requests' numbers, over all steps; `chance` decides the
    arrivals; setting `stop` ends the step that runs, and cuts what is in flight."""

    call: Call
    clock: Callable[[], float]
    stop: asyncio.Event
    chance: Random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def run(
        self, load: Load, ends: Ends, watch: Callable[[Tally], None] = lambda tally: None
    ) -> Tally:
        """One step, until its ends are reached and every answer is in, or until `stop`.

        `watch` gets the tally once, before the first request.
        """
        tally = Tally(self.clock())
        watch(tally)
        hopeless = asyncio.Event()
        step = _Step(self, load, ends, tally, hopeless)
        work = asyncio.ensure_future(step.open() if load.rate is not None else step.closed())
        enough = [asyncio.ensure_future(event.wait()) for event in (self.stop, hopeless)]
        try:
            await asyncio.wait([work, *enough], return_when=asyncio.FIRST_COMPLETED)
            tally.end = self.clock()
            tally.hopeless = hopeless.is_set()
            if not work.done():
                tally.cut = tally.begun - len(tally.samples)
        finally:
            for task in (work, *enough):
                task.cancel()
            await asyncio.wait([work, *enough])
        if not work.cancelled():
            work.result()
        return tally


@dataclass(frozen=True, slots=True)
class _Step:
    driver: Driver
    load: Load
    ends: Ends
    tally: Tally
    hopeless: asyncio.Event

    def _more(self, due: float) -> bool:
        """May a request that is due then still begin?"""
        ends, tally = self.ends, self.tally
        if self.hopeless.is_set():
            return False
        if ends.requests is not None and tally.begun >= ends.requests:
            return False
        return ends.seconds is None or due - tally.start < ends.seconds

    async def _until(self, due: float) -> None:
        """Not a moment before: a request that is sent early would look faster than it is."""
        left = due - self.driver.clock()
        # Also when it is late already: the answers must be read meanwhile.
        await self.driver.sleep(max(0.0, left))
        # uvloop rounds to milliseconds, down as well as up.
        while (left := due - self.driver.clock()) > 0:
            await self.driver.sleep(left + _ROUNDING)

    async def _one(self, due: float | None = None) -> None:
        tally = self.tally
        tally.in_flight += 1
        try:
            sample = await self.driver.call(next(self.driver.numbers), due)
        finally:
            tally.in_flight -= 1
        tally.add(sample)
        if tally.failed == self.ends.errors and tally.failed == len(tally.samples):
            self.hopeless.set()

    async def closed(self) -> None:
        async def user() -> None:
            while self._more(self.driver.clock()):
                self.tally.begun += 1
                await self._one()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.load.concurrency or 1):
                group.create_task(user())

    async def open(self) -> None:
        assert self.load.rate is not None
        slots = asyncio.Semaphore(self.load.concurrency) if self.load.concurrency else None

        async def arrived(due: float) -> None:
            if slots is None:
                await self._one(due)
                return
            async with slots:
                await self._one(due)

        async with asyncio.TaskGroup() as group:
            for after in arrivals.poisson(self.load.rate, self.driver.chance):
                due = self.tally.start + after
                if not self._more(due):
                    return
                await self._until(due)
                self.tally.begun += 1
                group.create_task(arrived(due))
