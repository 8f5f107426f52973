"""Watching an engine: what counts as a miss."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from server.config.engine import Engine
from server.engines.control import Health
from server.engines.watch import Death, Timing, watch

INTERVAL = 2.0


class Ill:
    """A process whose health says no at once, and is looked at again right then: somebody's request
    has failed. A look takes `step` seconds of its own clock."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.looks = 100.0, step, 0
        self.exited: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.poke = asyncio.Event()
        self.launch = SimpleNamespace(facts={})
        self.pid, self.vllm, self.control = 1, False, self

    async def health(self, timeout: float) -> Health:
        self.looks += 1
        self.now += self.step
        self.poke.set()
        return Health.MISSED

    def lines(self) -> tuple[str, ...]:
        return ()

    async def watched(self) -> Death:
        engine = Engine(
            runtime="command", cmd="program ${PORT}", health_interval=INTERVAL, health_misses=3
        )
        process: Any = self
        return await watch(
            process, lambda: engine, poke=self.poke, clock=lambda: self.now, timing=Timing()
        )


async def test_within_an_interval_there_is_one_miss() -> None:
    ill = Ill(step=0.1)
    died = await ill.watched()
    assert died.reason == "hang"
    assert ill.now - 100 >= 0.9 * 2 * INTERVAL
    assert ill.looks > 30


async def test_each_look_that_took_an_interval_is_a_miss() -> None:
    silent = Ill(step=INTERVAL)
    await silent.watched()
    assert silent.looks == 3
