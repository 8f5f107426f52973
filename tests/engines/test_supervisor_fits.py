"""Before its first start an engine is fitted, which may pull its weights: how that goes, and how it
fails."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from server.config.placement import Placement
from server.engines import devices, placer, planner
from server.engines.fitting import Fitted
from server.engines.placement import Device, Option, Plan, World
from server.engines.state import EngineState
from server.errors import Draining, EngineNotReady
from tests.engines.conftest import House, engine, failed, ready, started, until

S = EngineState


async def test_it_waits_with_its_stages_and_others_do_not_wait_for_it(house: House) -> None:
    house.launcher.holds["slow"] = hold = asyncio.Event()
    supervisor = await house.start(slow=engine(), quick=engine())
    view = await until(supervisor, "slow", lambda v: v.stage == "pulling weights (10%)")
    assert view.state is S.WAITING
    await ready(supervisor, "quick")  # after having waited for its turn
    hold.set()
    await ready(supervisor, "slow")
    assert house.launcher.fitted == ["slow", "quick"]


async def test_what_was_found_is_kept_for_later_starts(house: House) -> None:
    supervisor = await house.start(one=engine())
    await ready(supervisor, "one")
    await supervisor.unload("one")
    await supervisor.load("one")
    await ready(supervisor, "one", 1)
    assert house.launcher.fitted == ["one"]


async def test_a_failure_that_may_pass_is_tried_again_after_a_pause(house: House) -> None:
    house.launcher.fits["one"] = failed("crash", terminal=False)
    supervisor = await house.start(one=engine(load="request"))
    waiting = asyncio.create_task(supervisor.wait_ready("one", 20))
    view = await until(supervisor, "one", lambda v: v.state is S.BACKOFF)
    assert view.error_reason == "crash"
    assert view.stage.startswith("next try in")
    house.launcher.fits["one"] = Fitted((Option("cpu", 1),))
    assert (await waiting).state is S.READY
    assert len(house.launcher.fitted) >= 2


async def test_a_failure_that_stays_is_given_up(house: House) -> None:
    house.launcher.fits |= {"one": failed(), "two": failed("crash", terminal=False)}
    supervisor = await house.start(one=engine(), two=engine())
    error = await started(supervisor)
    assert error is not None
    assert error.reason == "weights"
    assert "'one'" in error.message
    await until(supervisor, "two", lambda v: v.state is S.FAILED)
    assert house.launcher.fitted.count("one") == 1
    assert house.launcher.fitted.count("two") == 5
    assert house.count("roundhouse_engine_starts_total", engine="one", result="failed") == 1
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 20)
    assert caught.value.code == "engine_failed"
    house.launcher.fits["one"] = Fitted((Option("cpu", 1),))
    await supervisor.apply({"one": engine(), "two": engine()}, {})
    await ready(supervisor, "one")


async def test_a_fault_of_ours_fails_the_engine_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.launcher, "fit", broken)
    supervisor = await house.start(one=engine())
    error = await started(supervisor)
    assert error is not None
    assert "fault in Roundhouse" in error.message


async def test_a_start_that_fails_for_memory_asks_for_the_needs_anew(house: House) -> None:
    house.launcher.scripts["one"] = failed("memory")
    supervisor = await house.start(one=engine())
    assert await started(supervisor) is not None
    house.launcher.scripts["one"] = {}
    await supervisor.load("one")
    await ready(supervisor, "one")
    assert house.launcher.fitted == ["one", "one"]


async def test_it_is_cancelled_with_a_new_config_a_removal_and_the_server(house: House) -> None:
    for name in ("changed", "removed", "left"):
        house.launcher.holds[name] = asyncio.Event()
    supervisor = await house.start(changed=engine(), removed=engine(), left=engine())
    for name in ("changed", "removed", "left"):
        await until(supervisor, name, lambda v: v.stage.startswith("pulling"))
    waiting = asyncio.create_task(supervisor.wait_ready("left", 20))
    del house.launcher.holds["changed"]
    await supervisor.apply({"changed": engine(dtype="float32"), "left": engine()}, {})
    await ready(supervisor, "changed")
    assert sorted(house.launcher.cancelled) == ["changed", "removed"]
    await supervisor.close()
    assert "left" in house.launcher.cancelled
    with pytest.raises(Draining):
        await waiting


async def test_a_machine_that_is_another_is_asked_again_for_what_does_not_run(
    house: House,
) -> None:
    supervisor = await house.start(one=engine(), two=engine())
    await ready(supervisor, "one")
    await ready(supervisor, "two")
    await supervisor.unload("two")
    await supervisor.apply({"one": engine(), "two": engine()}, {}, placement=house.placement)
    await supervisor.load("two")
    await ready(supervisor, "two")
    assert house.launcher.fitted == ["one", "two"]
    await supervisor.unload("two")
    more = Placement(memory={"cpu": 2**30})
    await supervisor.apply({"one": engine(), "two": engine()}, {}, placement=more)
    await supervisor.load("two")
    await ready(supervisor, "two")
    assert house.launcher.fitted == ["one", "two", "two"]


async def test_the_time_of_a_pull_is_not_one_of_being_passed_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes: list[float] = []

    def plan(world: World, now: float) -> Plan:
        wishes.extend(wish.since for wish in world.wishes)
        return planner.plan(world, now)

    monkeypatch.setattr("server.engines.placer.plan", plan)
    house.launcher.holds["one"] = hold = asyncio.Event()
    supervisor = await house.start(one=engine(load="request"))
    waiting = asyncio.create_task(supervisor.wait_ready("one", 20))
    await until(supervisor, "one", lambda v: v.stage.startswith("pulling"))
    released = time.monotonic()
    hold.set()
    await waiting
    assert wishes
    assert min(wishes) >= released


async def test_a_stage_of_what_was_broken_off_is_told_no_more(house: House) -> None:
    house.launcher.holds["one"] = asyncio.Event()
    supervisor = await house.start(one=engine())
    await until(supervisor, "one", lambda v: v.stage == "pulling weights (10%)")
    await supervisor.unload("one")
    house.launcher.holds.clear()
    stages = []
    with supervisor.subscribe() as feed:
        await supervisor.load("one")
        async for view in feed:
            if view.state is S.WAITING:
                stages.append(view.stage)
            if view.state is S.READY:
                break
    assert stages
    assert "pulling weights (10%)" not in stages


async def test_what_ran_while_the_machine_changed_is_fitted_anew_once_it_is_gone(
    house: House,
) -> None:
    supervisor = await house.start(one=engine())
    before = await ready(supervisor, "one")
    small = Placement(memory={"cpu": 2**30})
    house.launcher.devices = (replace(house.launcher.devices[0], reserved=2**40 - 2**30),)
    house.launcher.fits["one"] = Fitted((Option("cpu", 2**30),))
    await supervisor.apply({"one": engine()}, {}, placement=small)
    assert supervisor.view("one") == before
    await supervisor.unload("one")
    assert house.launcher.fitted == ["one"]
    await supervisor.load("one")
    view = await ready(supervisor, "one", before.generation)
    assert view.planned == 2**30
    assert house.launcher.fitted == ["one", "one"]


async def test_one_that_failed_is_left_alone_unless_it_changed_or_is_forgiven(
    house: House,
) -> None:
    house.launcher.fits["bad"] = failed()
    supervisor = await house.start(bad=engine())
    await until(supervisor, "bad", lambda v: v.state is S.FAILED)
    house.launcher.fits.clear()
    await supervisor.apply({"bad": engine(), "new": engine()}, {}, forgive=False)
    await ready(supervisor, "new")
    view = supervisor.view("bad")
    assert view is not None
    assert view.state is S.FAILED
    assert house.launcher.fitted == ["bad", "new"]
    await supervisor.apply({"bad": engine(idle=60), "new": engine()}, {}, forgive=False)
    await ready(supervisor, "bad")


async def test_devices_that_do_not_answer_are_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placer, "AFTER_FAULT", 0.01)
    asked = 0

    async def machine() -> tuple[Device, ...]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise devices.silent()
        return house.launcher.devices

    monkeypatch.setattr(house.launcher, "machine", machine)
    supervisor = await house.start(one=engine())
    await ready(supervisor, "one")
    assert asked == 3
