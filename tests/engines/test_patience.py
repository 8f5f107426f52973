"""Asking what may never answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.engines import devices
from server.engines.devices import Devices
from server.engines.launcher import VllmLauncher
from server.engines.patience import Patience, in_time
from server.errors import EngineError
from tests.engines.test_launcher import BIG, base, prepare

__all__ = ["base"]


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


def test_without_a_loop(driver: Driver) -> None:
    assert in_time(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        in_time(driver, 0.01)


# --- a driver that hangs ----------------------------------------------------------------------


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """From the call on, no device answers."""
    go = threading.Event()

    def silent() -> Devices:
        go.wait()
        return BIG

    yield lambda: monkeypatch.setattr(devices, "probe", silent)
    go.set()


@pytest.fixture
def impatient(base: Path) -> VllmLauncher:
    made = VllmLauncher(base / "home", base, {})
    made._looks.limit = made._probes.limit = 0.01
    return made


async def test_a_driver_that_never_answered(
    impatient: VllmLauncher, hangs: Callable[[], None]
) -> None:
    hangs()
    for _ in range(2):
        with pytest.raises(EngineError, match="do not answer") as caught:
            await impatient.machine()
        assert not caught.value.terminal
    with pytest.raises(EngineError, match="do not answer"):
        await prepare(impatient)


async def test_a_driver_that_hangs_later(
    impatient: VllmLauncher, hangs: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "probe", lambda: BIG)
    impatient._looks.limit = 20
    before = await impatient.machine()
    hangs()
    impatient._looks.limit = 0.01
    assert await impatient.machine() == before
    assert (await prepare(impatient)).facts["device"] == "cpu"
