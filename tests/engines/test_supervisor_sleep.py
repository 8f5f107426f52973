"""Engines that sleep instead of going, and what becomes of those that do not wake up."""

from __future__ import annotations

import os
import signal

import pytest

from server.engines.state import EngineState
from tests.engines.conftest import TWO_FIT, House, alive, ask, engine, gone, needs, ready, until

S = EngineState
#: Of the GPU nothing stays while it sleeps.
SLEEPS = needs(2, asleep=(0, 2))


@pytest.fixture
def bed(house: House) -> House:
    """One of the engines one and two fits, and both may sleep."""
    house.launcher.devices = TWO_FIT
    house.launcher.fits |= {"one": SLEEPS, "two": SLEEPS}
    return house


async def test_it_sleeps_to_make_room_and_wakes_as_the_same_process(bed: House) -> None:
    supervisor = await bed.start(one=engine(), two=engine(load="request"))
    one = await ready(supervisor, "one")
    two = await supervisor.wait_ready("two", 20)
    asleep = await until(supervisor, "one", lambda v: v.state is S.ASLEEP)
    assert (asleep.pid, asleep.generation, asleep.socket) == (one.pid, one.generation, None)
    assert asleep.stage == "asleep"
    assert [one.state for one in asleep.instances] == [S.ASLEEP]
    assert supervisor.instances("one") == ()
    assert supervisor.eta("one") is None
    again = await supervisor.wait_ready("one", 20)
    assert (again.pid, again.generation, again.socket) == (one.pid, one.generation, one.socket)
    assert await ask(again, "/is_sleeping") == {"is_sleeping": False}
    assert two.pid is not None
    assert alive(two.pid)
    assert bed.count("roundhouse_engine_loads_total", engine="one", how="wake") == 1
    assert bed.count("roundhouse_engine_loads_total", engine="one", how="start") == 1
    assert bed.count("roundhouse_engine_swaps_total", engine="one") == 1
    assert bed.count("roundhouse_engine_evictions_total", engine="one", why="room") == 1


@pytest.mark.parametrize("how", ["refuses", "ignores"])
async def test_one_that_does_not_fall_asleep_is_ended(bed: House, how: str) -> None:
    bed.launcher.scripts["one"] = {"sleep": how}
    supervisor = await bed.start(one=engine(), two=engine(load="request"))
    one = await ready(supervisor, "one")
    await supervisor.wait_ready("two", 20)
    assert one.pid is not None
    assert not alive(one.pid)
    assert bed.count("roundhouse_engine_restarts_total", engine="one", reason="sleep") == 1
    again = await supervisor.wait_ready("one", 20)
    assert again.generation > one.generation


async def test_one_that_does_not_wake_up_well_is_started_anew(bed: House) -> None:
    bed.launcher.scripts["one"] = {"sleep": "breaks"}
    supervisor = await bed.start(one=engine(), two=engine(load="request"))
    one = await ready(supervisor, "one")
    await supervisor.wait_ready("two", 20)
    await until(supervisor, "one", lambda v: v.state is S.ASLEEP)
    again = await supervisor.wait_ready("one", 20)
    assert again.generation > one.generation
    assert one.pid is not None
    assert not alive(one.pid)
    assert bed.count("roundhouse_engine_restarts_total", engine="one", reason="wake") == 1


async def test_one_that_dies_asleep_is_not_missed_until_it_is_asked_for(bed: House) -> None:
    supervisor = await bed.start(one=engine(), two=engine(load="request"))
    one = await ready(supervisor, "one")
    two = await supervisor.wait_ready("two", 20)
    await until(supervisor, "one", lambda v: v.state is S.ASLEEP)
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    await until(supervisor, "one", lambda v: v.state is S.STOPPED)
    assert two.pid is not None
    assert alive(two.pid)
    assert (await supervisor.wait_ready("one", 20)).generation > one.generation


async def test_an_idle_engine_sleeps_and_an_operator_ends_it(bed: House) -> None:
    supervisor = await bed.start(one=engine(idle=0.05))
    one = await ready(supervisor, "one")
    await until(supervisor, "one", lambda v: v.state is S.ASLEEP)
    assert bed.count("roundhouse_engine_evictions_total", engine="one", why="idle") == 1
    assert (await supervisor.unload("one")).state is S.STOPPED
    assert one.pid is not None
    await gone(one.pid)
    assert bed.count("roundhouse_engine_evictions_total", engine="one", why="operator") == 1


async def test_those_asleep_are_ended_with_the_server_and_by_a_new_config(bed: House) -> None:
    supervisor = await bed.start(one=engine(idle=0.05), two=engine(idle=0.05, load="request"))
    one = await ready(supervisor, "one")
    await until(supervisor, "one", lambda v: v.state is S.ASLEEP)
    two = await supervisor.wait_ready("two", 20)
    await until(supervisor, "two", lambda v: v.state is S.ASLEEP)
    changed = engine(idle=0.05, args={"max-model-len": 512})
    await supervisor.apply({"one": changed, "two": engine(idle=0.05, load="request")}, {})
    await ready(supervisor, "one", one.generation)
    await supervisor.close()
    assert one.pid is not None
    assert two.pid is not None
    await gone(one.pid, two.pid)
