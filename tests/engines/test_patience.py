"""Asking what may never answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from server.engines.patience import Patience


class Driver:
    """It answers when it is let go."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0

    def __call__(self) -> int:
        self.asked += 1
        self.go.wait()
        return self.asked


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    made.go.set()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)  # another thread sends no events


async def test_the_answer_and_the_fault() -> None:
    patience: Patience[int] = Patience("x")
    assert await patience.ask(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await patience.ask(lambda: 1 // 0)
    assert await patience.ask(lambda: 4) == 4


async def test_who_asks_meanwhile_shares_the_answer(driver: Driver) -> None:
    patience: Patience[int] = Patience("x")
    first, second = (asyncio.create_task(patience.ask(driver)) for _ in range(2))
    await until(lambda: driver.asked == 1)
    driver.go.set()
    assert [await first, await second] == [1, 1]


async def test_what_hangs_takes_one_thread_and_nobody_else_waits(driver: Driver) -> None:
    patience: Patience[int] = Patience("hangs", limit=0.01)
    with pytest.raises(TimeoutError):
        await patience.ask(driver)
    patience.limit = 3600
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await patience.ask(driver)
    assert [one.name for one in threading.enumerate()].count("hangs") == 1
    assert [one.daemon for one in threading.enumerate() if one.name == "hangs"] == [True]
    driver.go.set()
    await until(lambda: not patience.late)
    assert await patience.ask(driver) == 2


async def test_who_leaves_stops_nothing(driver: Driver) -> None:
    patience: Patience[int] = Patience("x")
    task = asyncio.create_task(patience.ask(driver))
    await until(lambda: driver.asked == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = asyncio.create_task(patience.ask(driver))
    driver.go.set()
    assert await again == 1
