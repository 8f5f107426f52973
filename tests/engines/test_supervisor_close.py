"""Whatever an engine is doing when the server is stopped, or an operator unloads it: nothing of it
is left, and nobody waits for it any longer."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server.config.placement import Placement
from server.engines import planner, usage
from server.engines.backoff import Policy
from server.engines.estimates import Estimates
from server.engines.placement import Plan, World
from server.engines.state import EngineState, EngineView
from server.engines.supervisor import Supervisor
from server.errors import Draining, EngineNotReady
from tests.engines.conftest import TWO_FIT, House, engine, needs, ready, tell, until

S = EngineState
Reached = Callable[[EngineView], bool]
#: A moment, and how it is known.
MOMENTS: dict[str, Reached] = {
    "fits": lambda v: v.stage.startswith("pulling"),
    "waits": lambda v: v.stage == "two is busy",
    "starts": lambda v: v.state is S.STARTING and v.pid is not None,
    "ready": lambda v: v.state is S.READY,
    "drains": lambda v: v.state is S.DRAINING and v.stage == "draining",
    "falls asleep": lambda v: v.stage == "falling asleep",
    "sleeps": lambda v: v.state is S.ASLEEP,
    "wakes": lambda v: v.stage == "waking up",
    "backs off": lambda v: v.stage.startswith("next start"),
    "failed": lambda v: v.state is S.FAILED,
}


async def reach(house: House, moment: str, tmp_path: Path) -> tuple[Supervisor, EngineView]:
    """`one` in that moment; where it wants `two`'s room, a request waits for it."""
    launcher = house.launcher
    launcher.devices = TWO_FIT
    launcher.fits |= {"one": needs(2, asleep=(0, 2)), "two": needs(2)}
    house.policy = Policy(first=3600, cap=3600)
    house.placement = Placement(starvation=3600, drain=3600)
    one, two = engine(), engine(load="request")
    if moment == "fits":
        launcher.holds["one"] = asyncio.Event()
    elif moment == "waits":
        one, two = engine(load="request"), engine()
    elif moment == "starts":
        launcher.scripts["one"] = {"gate": str(tmp_path / "never")}
    elif moment == "falls asleep":
        launcher.scripts["one"] = {"sleep": "hangs"}
        one = engine(idle=0.01)
    elif moment in ("sleeps", "wakes"):
        launcher.scripts["one"] = {"sleep": "sticks"}
        one = engine(idle=0.01)
    elif moment == "drains":
        house.placement = Placement(starvation=0, drain=3600)
    elif moment == "failed":
        launcher.scripts["one"] = {"exit": 2}
    supervisor = await house.start(one=one, two=two)
    if moment == "waits":
        await ready(supervisor, "two")
        house.busy["two"] = 1
        supervisor.used("two")
        await supervisor.load("one")
    elif moment == "drains":
        await ready(supervisor, "one")
        house.busy["one"] = 1
        supervisor.used("one")
        await supervisor.load("two")
    elif moment == "wakes":
        await until(supervisor, "one", MOMENTS["sleeps"])
        await supervisor.load("one")
    elif moment == "backs off":
        await tell(await ready(supervisor, "one"), "exit0")
    return supervisor, await until(supervisor, "one", MOMENTS[moment])


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_close_leaves_nothing(house: House, tmp_path: Path, moment: str) -> None:
    supervisor, _ = await reach(house, moment, tmp_path)
    waiting = [asyncio.create_task(supervisor.wait_ready(n, 60)) for n in ("one", "two")]
    await asyncio.sleep(0)
    await supervisor.close(drain=False)
    for task in waiting:
        try:
            view = await task
        except (Draining, EngineNotReady):
            continue
        assert view.state is S.READY
    assert [view.state for view in supervisor.views()] == [S.STOPPED, S.STOPPED]
    assert all(not view.instances for view in supervisor.views())


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_operator_can_unload_and_load(house: House, tmp_path: Path, moment: str) -> None:
    supervisor, before = await reach(house, moment, tmp_path)
    house.busy.clear()
    async with asyncio.timeout(20):
        view = await supervisor.unload("one")
    assert (view.state, view.pid, view.error) == (S.STOPPED, None, None)
    house.launcher.holds.clear()
    house.launcher.scripts.clear()
    await supervisor.unload("two")
    await supervisor.load("one")
    again = await ready(supervisor, "one")
    assert again.generation > before.generation or moment in ("fits", "waits")


async def test_a_fault_in_the_planner_is_told_and_passes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([ZeroDivisionError()])

    def plan(world: World, now: float) -> Plan:
        for fault in faults:
            raise fault
        return planner.plan(world, now)

    monkeypatch.setattr("server.engines.placer.plan", plan)
    monkeypatch.setattr("server.engines.placer.AFTER_FAULT", 0.01)
    supervisor = await house.start(one=engine())
    await ready(supervisor, "one")
    assert next(faults, None) is None


async def test_what_is_used_is_looked_at_while_something_runs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "EVERY", 0.01)
    broken = iter([OSError()])
    look = usage.Usage.look

    async def looks(self: usage.Usage) -> None:
        for fault in broken:
            raise fault
        await look(self)

    monkeypatch.setattr(usage.Usage, "look", looks)
    supervisor = await house.start(one=engine())
    view = await until(supervisor, "one", lambda v: v.used is not None)
    assert view.planned == 1
    await supervisor.unload("one")
    async with asyncio.timeout(5):
        while any(task.get_name() == "usage" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
    await supervisor.load("one")
    await until(supervisor, "one", lambda v: v.used is not None)


async def test_a_disk_that_hangs_keeps_no_engine_from_being_watched_and_stopped(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    monkeypatch.setattr("server.engines.unit.SAVE", 0.01)
    monkeypatch.setattr(Estimates, "save", lambda self: disk.wait(30))
    try:
        supervisor = await house.start(one=engine())
        view = await ready(supervisor, "one")
        assert view.pid is not None
        os.kill(view.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await ready(supervisor, "one", view.generation)
            assert (await supervisor.unload("one")).state is S.STOPPED
    finally:
        disk.set()
