"""The supervisor's engines that stay or go by themselves: idle ones, pinned ones, groups,
and what operators and the config say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.config.placement import Placement
from server.engines.placement import Device
from server.engines.state import EngineState
from server.errors import EngineNotReady
from tests.engines.conftest import (
    TWO_FIT,
    House,
    alive,
    engine,
    failed,
    gone,
    needs,
    ready,
    started,
    state,
    until,
)

S = EngineState


# --- idle -----------------------------------------------------------------------------------------


async def test_an_idle_engine_goes_and_comes_back_with_the_next_request(room: House) -> None:
    supervisor = await room.start(one=engine(idle=0.2))
    view = await ready(supervisor, "one")
    assert view.unload_at is not None
    assert view.ready_since is not None
    assert view.unload_at == pytest.approx(view.ready_since + 0.2)
    await until(supervisor, "one", lambda v: v.state is S.STOPPED)
    assert view.pid is not None
    assert not alive(view.pid)
    assert room.count("roundhouse_engine_evictions_total", engine="one", why="idle") == 1
    assert (await supervisor.wait_ready("one", 20)).generation > view.generation


async def test_a_used_engine_is_not_idle_until_its_last_answer_is_given(room: House) -> None:
    room.busy["one"] = 1
    supervisor = await room.start(one=engine(idle=0.001))
    await ready(supervisor, "one")
    begun = room.looks
    async with asyncio.timeout(20):
        while room.looks < begun + 5:  # several times as long as it may be idle
            await room.looked.wait()
            room.looked.clear()
    assert state(supervisor, "one") is S.READY
    before = supervisor.view("one")
    assert before is not None
    assert before.unload_at is None
    room.busy["one"] = 0
    gone_ = await until(supervisor, "one", lambda v: v.state is S.STOPPED)
    assert gone_.last_used > before.since


async def test_keep_alive_is_what_the_last_request_wished_for(room: House) -> None:
    supervisor = await room.start(
        one=engine(idle=3600, residency=3600), two=engine(idle=0.1, load="request")
    )
    await ready(supervisor, "one")
    await supervisor.wait_ready("two", 20)
    room.busy |= {"one": 1, "two": 1}
    supervisor.used("one", 0, 3600)
    supervisor.used("one", 0, 0)
    supervisor.used("two", 0, 3600)
    supervisor.used("nobody", 0, 0)
    supervisor.used("one", 7, 0)
    room.busy |= {"one": 0, "two": 0}
    await until(supervisor, "one", lambda v: v.state is S.STOPPED)
    assert state(supervisor, "two") is S.READY
    supervisor.used("two", 0, None)
    await until(supervisor, "two", lambda v: v.state is S.STOPPED)


async def test_a_request_cannot_send_an_engine_away_that_others_are_to_find(room: House) -> None:
    room.placement = room.placement.model_copy(update={"keep_alive_least": 1800.0})
    supervisor = await room.start(one=engine(idle=3600))
    await ready(supervisor, "one")
    room.busy["one"] = 1
    supervisor.used("one", 0, 0)
    room.busy["one"] = 0
    async with asyncio.timeout(20):
        while (view := supervisor.view("one")) is None or view.unload_at is None:
            room.looked.clear()
            await room.looked.wait()
    assert view.state is S.READY
    assert view.unload_at >= view.last_used + 1800


async def test_a_pinned_engine_comes_first_and_stays(room: House) -> None:
    config = {
        "one": engine(load="request"),
        "two": engine(load="request"),
        "three": engine(pinned=True, load="request", idle=0.01),
    }
    supervisor = await room.start(**config)
    assert supervisor.starting()
    assert await started(supervisor) is None
    pinned = await supervisor.wait_ready("three", 20)
    assert pinned.unload_at is None
    for name in ("one", "two", "one"):
        await supervisor.wait_ready(name, 20)
    assert state(supervisor, "three") is S.READY
    assert room.launcher.launches == ["three", "one", "two", "one"]
    await supervisor.unload("three")
    await supervisor.wait_ready("two", 20)
    assert state(supervisor, "three") is S.STOPPED
    await supervisor.load("three")
    await ready(supervisor, "three", pinned.generation)


async def test_engines_of_a_group_never_run_together(room: House) -> None:
    both = {"one": engine(groups=["g"], load="request"), "two": engine(groups=["g"])}
    supervisor = await room.start(**both)
    two = await ready(supervisor, "two")
    await supervisor.wait_ready("one", 20)
    assert two.pid is not None
    assert not alive(two.pid)
    with supervisor.subscribe() as feed:
        await supervisor.wait_ready("two", 20)
        running = {"one": True, "two": False}
        while not running["two"]:
            view = await anext(feed)
            running[view.name] = bool(view.instances)
            assert not all(running.values())


# --- operators and the config ---------------------------------------------------------------------


async def test_an_operator_unloads_in_every_state(room: House, tmp_path: Path) -> None:
    room.placement = Placement(starvation=3600)
    never = {"gate": str(tmp_path / "never")}
    supervisor = await room.start(one=engine(load="request"), three=engine(load="request"))
    room.launcher.fits["three"] = needs(2)

    async def stopped() -> None:
        assert (await supervisor.unload("three")).state is S.STOPPED
        with pytest.raises(EngineNotReady) as caught:
            await supervisor.wait_ready("three", 20)
        assert caught.value.code == "engine_stopped"
        assert supervisor.hopeless("three") is not None

    await stopped()  # it never ran
    room.launcher.holds["three"] = asyncio.Event()
    await supervisor.load("three")
    pulls = await until(supervisor, "three", lambda v: v.stage.startswith("pulling"))
    assert pulls.state is S.WAITING
    await stopped()  # while its needs are looked for
    assert room.launcher.cancelled == ["three"]
    room.launcher.holds["three"].set()
    await supervisor.wait_ready("one", 20)
    room.busy["one"] = 1
    supervisor.used("one")
    await supervisor.load("three")
    await until(supervisor, "three", lambda v: "busy" in v.stage)
    waiting = asyncio.create_task(supervisor.wait_ready("three", 20))
    await asyncio.sleep(0)  # it is in line now
    await supervisor.unload("three")  # while it waits
    with pytest.raises(EngineNotReady, match="operator"):
        await waiting
    assert state(supervisor, "one") is S.READY
    room.busy["one"] = 0
    room.launcher.scripts["three"] = never
    await supervisor.load("three")
    starting = await until(supervisor, "three", lambda v: v.pid is not None)
    await stopped()  # while it starts
    assert starting.pid is not None
    assert not alive(starting.pid)
    room.launcher.scripts["three"] = {"exit": 2}
    await supervisor.load("three")
    await until(supervisor, "three", lambda v: v.state is S.FAILED)
    await stopped()  # once it has failed
    room.launcher.scripts["three"] = {}
    await supervisor.load("three")
    await ready(supervisor, "three")


async def test_a_config_with_other_rules_takes_effect_without_a_restart(room: House) -> None:
    supervisor = await room.start(one=engine(), two=engine(), three=engine(load="request"))
    one, two = await ready(supervisor, "one"), await ready(supervisor, "two")
    room.busy |= {"one": 1, "two": 1}
    supervisor.used("one")
    supervisor.used("two")
    waiting = asyncio.create_task(supervisor.wait_ready("three", 20))
    await until(supervisor, "three", lambda v: "busy" in v.stage)
    config = {"one": engine(pinned=True), "two": engine(), "three": engine(load="request")}
    await supervisor.apply(config, {}, placement=Placement(starvation=0, drain=0.1))
    await waiting
    view = supervisor.view("one")
    assert view is not None
    assert view.pid == one.pid
    assert two.pid is not None
    assert not alive(two.pid)
    config["one"] = engine(idle=0.1)
    room.busy["one"] = 0
    await supervisor.apply(config, {})
    await until(supervisor, "one", lambda v: v.state is S.STOPPED)


async def test_a_changed_engine_is_fitted_and_placed_anew(room: House) -> None:
    supervisor = await room.start(one=engine(), two=engine())
    one, two = await ready(supervisor, "one"), await ready(supervisor, "two")
    room.launcher.fits["one"] = needs(2)
    changed = {"one": engine(args={"max-model-len": 512}), "two": engine()}
    await supervisor.apply(changed, {})
    again = await ready(supervisor, "one", one.generation)
    assert again.planned == 2
    assert room.launcher.fitted == ["one", "two", "one"]
    assert two.pid is not None
    assert not alive(two.pid)
    assert room.count("roundhouse_engine_evictions_total", engine="one", why="config") == 1


async def test_a_removed_engine_keeps_its_room_until_it_is_gone(room: House) -> None:
    room.launcher.devices = (Device("cuda:0", "cuda", 1), TWO_FIT[1])
    supervisor = await room.start(one=engine(), two=engine(load="request"))
    one = await ready(supervisor, "one")
    room.busy["one"] = 1
    supervisor.used("one")
    await supervisor.apply({"two": engine(load="request")}, {})
    waiting = asyncio.create_task(supervisor.wait_ready("two", 20))
    await until(supervisor, "two", lambda v: v.stage == "memory is coming free")
    assert one.pid is not None
    assert alive(one.pid)
    room.busy["one"] = 0
    await waiting
    assert not alive(one.pid)
    await gone(one.pid)
    assert room.count("roundhouse_engine_state", engine="one", state="stopped") == 0


async def test_of_one_that_comes_back_while_it_drains_the_new_self_is_counted(room: House) -> None:
    supervisor = await room.start(one=engine())
    before = await ready(supervisor, "one")
    room.busy["one"] = 1
    supervisor.used("one")
    await supervisor.apply({}, {})
    room.launcher.fits["one"] = failed()
    await supervisor.apply({"one": engine()}, {})
    await until(supervisor, "one", lambda v: v.state is S.FAILED)
    room.busy["one"] = 0
    await until(supervisor, "one", lambda v: not v.instances)
    assert before.pid is not None
    assert not alive(before.pid)
    counts = {s: room.count("roundhouse_engine_state", engine="one", state=s) for s in S}
    assert counts == {s: float(s is S.FAILED) for s in S}
