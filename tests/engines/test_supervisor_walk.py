"""Anything may happen to a few engines on a small machine: what must hold all the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import psutil
import pytest

from server.config.engine import Engine
from server.config.placement import Placement
from server.engines.placement import Device, Phase
from server.engines.state import EngineState, EngineView
from server.engines.supervisor import Supervisor
from server.errors import EngineNotReady
from tests.engines.conftest import House, engine, needs, tell

#: Units of the GPU, of the host.
GPU, HOST = 3, 4
NAMES = ("a", "b", "c", "d")
#: Of these only one may be there at a time.
GROUP = ("a", "c")


class Walk:
    """Requests, operators, reloads and deaths, by the dice."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.dice = house, random.Random(seed)
        self.tasks: set[asyncio.Task[None]] = set()
        self.served: Counter[str] = Counter()
        self.told: set[str] = set()
        house.placement = Placement(starvation=0.2, drain=0.2)
        house.launcher.devices = (
            Device("cuda:0", "cuda", GPU, sleeps=True),
            Device("cpu", "cpu", HOST, cores=(0, 1)),
        )
        house.launcher.fits |= {
            "a": needs(1), "b": needs(2, asleep=(0, 2)), "c": needs(2, host=1), "d": needs(3),
        }  # fmt: skip
        self.config = {name: self.engine(name) for name in NAMES}

    def engine(self, name: str) -> Engine:
        dice, grouped = self.dice, name in GROUP
        return engine(
            load=dice.choice(["startup", "request"]),
            idle=dice.choice([None, None, 0.1, 1]),
            residency=dice.choice([0, 0, 0.1]),
            replicas=1 if grouped else dice.choice([1, 1, 2]),
            groups=["g"] if grouped else [],
            stop_timeout=0.3,
            start_timeout=dice.choice([20, 20, 21]),
        )

    def check(self, supervisor: Supervisor) -> None:
        """At every moment: memory is enough, and groups are kept."""
        taken: Counter[str] = Counter()
        together: set[str] = set()
        for one in (one for crew in supervisor._all() for one in crew.running()):
            left, away = one.option.asleep or (one.option.each, 0)
            asleep = one.phase is Phase.ASLEEP or (one.phase is Phase.STOPPING and one.slept)
            for device in one.devices:
                taken[device] += left if asleep else one.option.each
            moving = one.phase in (Phase.SLEEPING, Phase.WAKING)
            taken["cpu"] += one.option.host + (away if asleep or moving else 0)
            together |= {one.engine} & set(GROUP)
        assert len(together) <= 1, together
        assert taken["cuda:0"] <= GPU, taken
        assert taken["cpu"] <= HOST, taken

    async def request(self, supervisor: Supervisor, name: str) -> None:
        try:
            await supervisor.wait_ready(name, 30)
        except EngineNotReady as error:
            self.told.add(error.code)
            return
        ready = supervisor.instances(name)
        if not ready:
            return
        place = name if ready[0].replica == 0 else f"{name}@{ready[0].replica}"
        keep_alive = self.dice.choice([None, None, 0, 1])
        supervisor.used(name, ready[0].replica, keep_alive)
        self.house.busy[place] = self.house.busy.get(place, 0) + 1
        self.served[name] += 1
        await asyncio.sleep(self.dice.choice([0, 0.01, 0.1, 0.4]))
        self.house.busy[place] -= 1

    async def step(self, supervisor: Supervisor) -> None:
        name = self.dice.choice(NAMES)
        what = self.dice.choice(["ask"] * 8 + ["die", "unload", "load", "reload", "want", "remove"])
        if what == "ask":
            self.begin(self.request(supervisor, name))
        elif what == "die":
            self.begin(self.die(supervisor.view(name)))
        elif what == "unload" and supervisor.view(name) is not None:
            self.begin(self.unload(supervisor, name))
        elif what == "load" and supervisor.view(name) is not None:
            await supervisor.load(name)
        elif what == "want":
            supervisor.want(name)
        elif what == "reload":
            self.config[name] = self.engine(name)
            await supervisor.apply(self.config, {})
        elif what == "remove":
            others = {one: config for one, config in self.config.items() if one != name}
            await supervisor.apply(others, {})
            await supervisor.apply(self.config, {})

    def begin(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.create_task(work)
        self.tasks.add(task)

    async def die(self, view: EngineView | None) -> None:
        if view is not None and view.state is EngineState.READY:
            await tell(view, "exit0")

    async def unload(self, supervisor: Supervisor, name: str) -> None:
        await supervisor.unload(name)

    async def watch(self, supervisor: Supervisor) -> None:
        with supervisor.subscribe() as feed:
            async for _ in feed:
                self.check(supervisor)


@pytest.mark.parametrize("seed", range(4))
async def test_a_random_walk(house: House, seed: int) -> None:
    walk = Walk(house, seed)
    supervisor = await house.start(**walk.config)
    watching = asyncio.create_task(walk.watch(supervisor))
    for _ in range(40):
        await walk.step(supervisor)
        await asyncio.sleep(walk.dice.choice([0, 0.01, 0.05, 0.2]))
    async with asyncio.timeout(60):
        await asyncio.gather(*walk.tasks)
    # Nobody waited in vain: what was said is why, not that the time is over.
    assert walk.told <= {"engine_stopped", "engine_not_ready", "engine_failed"}
    assert walk.served
    # Whatever happened: each of them can still be brought to answer.
    async with asyncio.timeout(60):
        for name in NAMES:
            await supervisor.load(name)
            await supervisor.wait_ready(name, 30)
    assert not watching.done()
    closing = random.Random(seed).choice([True, False])
    await supervisor.close(drain=closing)
    await watching
    assert {view.state for view in supervisor.views()} == {EngineState.STOPPED}
    assert not psutil.Process().children(recursive=True)
