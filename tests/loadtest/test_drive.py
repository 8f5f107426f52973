from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import Any

import pytest

from server.loadtest import arrivals
from server.loadtest.drive import Driver, Tally
from server.loadtest.plan import Ends, Load
from server.loadtest.sample import Failure, Sample
from tests.loadtest.made import sample


class Server:
    """Answers when it is told to, or at once; time passes only when somebody sleeps."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.now = 0.0
        self.at_once = at_once
        self.calls: list[tuple[int, float | None]] = []
        self.most = self.open = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.came = asyncio.Condition()
        self.fails = lambda index: False
        #: Seconds that an answer takes.
        self.took = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def __call__(self, index: int, due: float | None = None) -> Sample:
        self.calls.append((index, due))
        self.open += 1
        self.most = max(self.most, self.open)
        sent = self.now
        try:
            async with self.came:
                self.came.notify_all()
            if not self.at_once:
                self.waiting.append(asyncio.get_running_loop().create_future())
                await self.waiting[-1]
            self.now += self.took
            await asyncio.sleep(0)
        finally:
            self.open -= 1
        found = sample(due=sent if due is None else due, sent=sent, ended=self.now)
        if self.fails(index):
            found.failure = Failure("HTTP 500", f"number {index}")
        return found

    async def has(self, calls: int) -> None:
        async with self.came:
            await self.came.wait_for(lambda: len(self.calls) >= calls)

    def driver(self, **more: Any) -> Driver:
        more.setdefault("stop", asyncio.Event())
        return Driver(self, self.clock, chance=Random(1), sleep=self.sleep, **more)


async def test_a_closed_loop_keeps_so_many_open_and_no_more() -> None:
    server = Server(at_once=False)
    driver = server.driver()
    run = asyncio.create_task(driver.run(Load(concurrency=3), Ends(requests=5)))
    await server.has(3)
    assert server.open == 3
    server.waiting[1].set_result(None)
    await server.has(4)
    assert server.open == 3
    for future in server.waiting:
        if not future.done():
            future.set_result(None)
    await server.has(5)
    server.waiting[4].set_result(None)
    tally = await run
    assert [index for index, _ in server.calls] == [0, 1, 2, 3, 4]
    assert [due for _, due in server.calls] == [None] * 5
    assert (len(tally.samples), tally.begun, tally.in_flight, tally.cut) == (5, 5, 0, 0)
    assert tally.tokens == 25
    assert next(driver.numbers) == 5


async def test_no_request_begins_after_the_time() -> None:
    server = Server()
    server.took = 0.25
    tally = await server.driver().run(Load(concurrency=1), Ends(seconds=1.0))
    assert [s.sent for s in tally.samples] == [0.0, 0.25, 0.5, 0.75]
    assert tally.end == 1.0


async def test_an_open_loop_sends_whatever_the_server_does() -> None:
    server = Server(at_once=False)
    due = list(itertools.takewhile(lambda at: at < 3.0, arrivals.poisson(10, Random(1))))
    run = asyncio.create_task(server.driver().run(Load(rate=10), Ends(seconds=3.0)))
    await server.has(len(due))
    for future in server.waiting:
        future.set_result(None)
    tally = await run
    assert server.most == len(tally.samples) == len(due) > 15
    assert [at for _, at in server.calls] == due


async def test_none_is_sent_before_it_is_due() -> None:
    """uvloop's timers are rounded to milliseconds, and can be early."""
    server = Server()

    async def early(seconds: float) -> None:
        server.now += max(0.0001, seconds - 0.0009)
        await asyncio.sleep(0)

    driver = server.driver()
    driver.sleep = early
    tally = await driver.run(Load(rate=100), Ends(requests=50))
    assert all(s.late >= 0 for s in tally.samples)


async def test_the_same_chance_the_same_arrivals() -> None:
    dues = []
    for _ in range(2):
        server = Server()
        await server.driver().run(Load(rate=5), Ends(requests=10))
        dues.append([due for _, due in server.calls])
    assert dues[0] == dues[1]


async def test_what_waits_for_its_turn_counts_from_being_due() -> None:
    server = Server()
    server.took = 1.0
    tally = await server.driver().run(Load(rate=1000, concurrency=1), Ends(requests=5))
    assert server.most == 1
    assert [round(s.late, 1) for s in tally.samples] == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_hopeless() -> None:
    server = Server()
    server.fails = lambda index: True
    tally = await server.driver().run(Load(concurrency=1), Ends(requests=100, errors=3))
    assert tally.hopeless
    assert tally.failed == len(tally.samples) == 3
    assert tally.first_failure == Failure("HTTP 500", "number 0")


@pytest.mark.parametrize(("first", "errors"), [(2, 3), (0, 0)])
async def test_not_hopeless(first: int, errors: int) -> None:
    """One good answer among the first, or any number of failures allowed."""
    server = Server()
    server.fails = lambda index: index != first
    tally = await server.driver().run(Load(concurrency=1), Ends(requests=30, errors=errors))
    assert not tally.hopeless
    assert (len(tally.samples), tally.failed) == (30, 29)


@pytest.mark.parametrize("load", [Load(concurrency=3), Load(rate=1000), Load(1000, 3)])
async def test_a_stop_cuts_what_is_in_flight(load: Load) -> None:
    server = Server(at_once=False)
    stop = asyncio.Event()
    watched: list[Tally] = []
    run = asyncio.create_task(
        server.driver(stop=stop).run(load, Ends(requests=100), watch=watched.append)
    )
    await server.has(3)
    server.waiting[0].set_result(None)
    await server.has(4)
    stop.set()
    tally = await run
    assert watched == [tally]
    assert len(tally.samples) == 1
    assert tally.cut == tally.begun - 1 >= 3
    assert not tally.hopeless
    assert server.open == 0


async def test_a_fault_of_ours_is_raised() -> None:
    server = Server()

    def broken(index: int) -> bool:
        raise RuntimeError("ours")

    server.fails = broken
    with pytest.raises(ExceptionGroup) as caught:
        await server.driver().run(Load(concurrency=1), Ends(requests=1))
    assert caught.group_contains(RuntimeError, match="ours")
