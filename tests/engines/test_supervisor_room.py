"""The supervisor where not all engines fit: who waits, who makes room, who is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from server.config.placement import Placement as Settings
from server.engines.fitting import Fitted
from server.engines.placement import Device, Option
from server.engines.runtimes import Placement
from server.engines.state import EngineState
from server.errors import Draining, EngineNotReady
from tests.engines.conftest import (
    QUICK,
    TWO_FIT,
    House,
    alive,
    engine,
    gone,
    needs,
    ready,
    started,
    state,
    until,
)

S = EngineState


async def test_three_engines_of_which_two_fit_answer_all_who_wait(room: House) -> None:
    config = {name: engine(load="request") for name in ("one", "two", "three")}
    supervisor = await room.start(**config)
    for name in ("one", "two", "three", "one", "two", "three"):
        view = await supervisor.wait_ready(name, 20)
        assert view.state is S.READY
        assert view.devices == ("cuda:0",)
        assert view.planned == 1
        assert sum(one.planned for one in supervisor.views()) <= 2
        supervisor.used(name)
    assert room.launcher.launches == ["one", "two", "three", "one", "two", "three"]
    assert room.count("roundhouse_engine_evictions_total", engine="one", why="room") == 2
    assert room.count("roundhouse_engine_swaps_total", engine="one") == 1
    assert room.count("roundhouse_engine_swaps_total", engine="three") == 2
    assert room.count("roundhouse_engine_loads_total", engine="one", how="start") == 2
    assert room.count("roundhouse_engine_wait_seconds_count", engine="one") == 2
    assert room.count("roundhouse_engine_residency_seconds_count", engine="one") == 2
    assert room.count("roundhouse_device_memory_bytes", device="cuda:0", kind="total") == 2
    assert room.count("roundhouse_device_memory_bytes", device="cuda:0", kind="planned") == 2
    assert room.launcher.places[0][1] is not None
    assert room.launcher.places[0][1].ids == (0,)


async def test_all_at_once_are_answered_in_turn(room: House) -> None:
    config = {name: engine(load="request") for name in ("one", "two", "three")}
    supervisor = await room.start(**config)

    async def served(name: str) -> None:
        await supervisor.wait_ready(name, 20)

    await asyncio.gather(*(served(name) for name in config for _ in range(5)))
    assert sorted(set(room.launcher.launches)) == ["one", "three", "two"]


async def test_who_has_waited_can_send_before_others_have_their_turn(room: House) -> None:
    room.launcher.fits |= {"one": needs(2), "two": needs(2)}
    supervisor = await room.start(one=engine(load="request"), two=engine(load="request"))

    async def served(name: str) -> None:
        await supervisor.wait_ready(name, 20)
        for _ in range(20):  # whatever a request does before it is sent
            await asyncio.sleep(0)
        assert state(supervisor, name) is S.READY
        supervisor.used(name)

    await asyncio.gather(served("one"), served("two"))


async def test_who_waits_for_a_busy_engine_says_so_and_has_its_turn_when_it_is_idle(
    room: House,
) -> None:
    supervisor = await room.start(one=engine(), two=engine(), three=engine(load="request"))
    assert await started(supervisor) is None
    one, two = await ready(supervisor, "one"), await ready(supervisor, "two")
    room.busy |= {"one": 1, "two": 1}
    supervisor.used("one")
    supervisor.used("two")
    waiting = asyncio.create_task(supervisor.wait_ready("three", 20))
    view = await until(supervisor, "three", lambda v: "busy" in v.stage)
    assert view.state is S.WAITING
    assert view.stage in ("one is busy", "two is busy")
    assert one.pid is not None
    assert two.pid is not None
    assert alive(one.pid)
    assert alive(two.pid)
    room.busy["two"] = 0
    await waiting
    assert state(supervisor, "two") is S.STOPPED
    assert state(supervisor, "one") is S.READY
    assert not alive(two.pid)


async def test_who_has_waited_too_long_makes_a_busy_engine_drain(room: House) -> None:
    room.placement = Settings(starvation=0.1, drain=20)
    room.launcher.fits["three"] = needs(2)
    supervisor = await room.start(one=engine(), two=engine(), three=engine(load="request"))
    one, two = await ready(supervisor, "one"), await ready(supervisor, "two")
    room.busy["one"] = 1
    supervisor.used("one")
    waiting = asyncio.create_task(supervisor.wait_ready("three", 20))
    drained = await until(supervisor, "one", lambda v: v.state is S.DRAINING)
    assert drained.socket is None
    assert supervisor.instances("one") == ()
    assert one.pid is not None
    assert alive(one.pid)
    again = asyncio.create_task(supervisor.wait_ready("one", 20))
    asks = await until(supervisor, "one", lambda v: v.state is S.WAITING and bool(v.stage))
    assert asks.stage == "it makes room for another, and starts again after that"
    room.busy["one"] = 0
    await waiting
    assert not alive(one.pid)
    assert two.pid is not None
    assert not alive(two.pid)
    assert (await again).generation > one.generation
    assert state(supervisor, "three") is S.STOPPED


async def test_a_drain_has_an_end(room: House) -> None:
    room.placement = Settings(starvation=0, drain=0.2)
    room.launcher.fits["three"] = needs(2)
    supervisor = await room.start(one=engine(stop_timeout=3600), three=engine(load="request"))
    one = await ready(supervisor, "one")
    room.busy["one"] = 1
    supervisor.used("one")
    await supervisor.wait_ready("three", 20)
    assert one.pid is not None
    assert not alive(one.pid)


async def test_what_loads_at_the_start_never_makes_others_go(room: House) -> None:
    supervisor = await room.start(one=engine(), two=engine(), three=engine())
    assert await started(supervisor) is None
    assert not supervisor.starting()
    assert state(supervisor, "one") is S.READY
    assert state(supervisor, "two") is S.READY
    view = supervisor.view("three")
    assert view is not None
    assert view.state is S.STOPPED
    assert view.stage == "no room at the start; loads with its first request"
    assert supervisor.eta("three") is None
    assert (await supervisor.wait_ready("three", 20)).stage == "ready"


async def test_what_can_never_fit_is_refused_and_tried_again_when_an_operator_says_so(
    room: House,
) -> None:
    room.launcher.fits["one"] = Fitted(needs(3).options, refusal="It needs 3 and there are 2.")
    supervisor = await room.start(one=engine(), two=engine(load="request"))
    error = await started(supervisor)
    assert error is not None
    assert error.reason == "memory"
    assert error.terminal
    assert error.message == "Engine 'one': It needs 3 and there are 2."
    view = supervisor.view("one")
    assert view is not None
    assert (view.state, view.error_reason) == (S.FAILED, "memory")
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("one", 20)
    assert caught.value.code == "engine_failed"
    await supervisor.wait_ready("two", 20)
    assert room.launcher.launches == ["two"]
    room.launcher.devices = (Device("cuda:0", "cuda", 4), TWO_FIT[1])
    await supervisor.load("one")
    await ready(supervisor, "one")


async def test_a_start_that_fails_leaves_its_room_to_those_who_wait(room: House) -> None:
    room.launcher.fits |= {"one": needs(2), "two": needs(2)}
    room.launcher.scripts["one"] = {"exit": 2}
    supervisor = await room.start(one=engine(load="request"), two=engine(load="request"))
    results = await asyncio.gather(
        supervisor.wait_ready("one", 20), supervisor.wait_ready("two", 20), return_exceptions=True
    )
    assert isinstance(results[0], EngineNotReady)
    assert results[0].code == "engine_failed"
    assert not isinstance(results[1], BaseException)
    assert results[1].state is S.READY


async def test_a_wait_that_ends_takes_its_wish_along(room: House) -> None:
    room.launcher.fits["three"] = needs(2)
    supervisor = await room.start(one=engine(), three=engine(load="request"))
    one = await ready(supervisor, "one")
    room.busy["one"] = 1
    supervisor.used("one")
    with pytest.raises(EngineNotReady) as caught:
        await supervisor.wait_ready("three", 0.1)
    assert caught.value.code == "engine_loading"
    assert state(supervisor, "three") is S.STOPPED
    room.busy["one"] = 0
    await supervisor.wait_ready("one", 1)
    assert one.pid is not None
    assert alive(one.pid)
    assert room.launcher.launches == ["one"]


async def test_what_a_request_passed_over_is_loaded_for_the_next_ones(room: House) -> None:
    supervisor = await room.start(one=engine(load="request"))
    supervisor.want("one")
    supervisor.want("nobody")
    await ready(supervisor, "one")
    supervisor.want("one")
    assert room.launcher.launches == ["one"]


async def test_a_close_while_some_wait_and_some_make_room(room: House, tmp_path: Path) -> None:
    room.placement = Settings(starvation=0, drain=3600)
    room.launcher.fits["three"] = needs(2)
    room.launcher.scripts["two"] = {"gate": str(tmp_path / "never")}
    supervisor = await room.start(
        one=engine(stop_timeout=0.1), two=engine(), three=engine(load="request")
    )
    one = await ready(supervisor, "one")
    two = await until(supervisor, "two", lambda v: v.pid is not None)
    room.busy["one"] = 1
    supervisor.used("one")
    waiting = asyncio.create_task(supervisor.wait_ready("three", 20))
    await until(supervisor, "three", lambda v: v.state is S.WAITING and v.waiting > 0)
    await supervisor.close()
    with pytest.raises(Draining):
        await waiting
    assert one.pid is not None
    assert two.pid is not None
    await gone(one.pid, two.pid)
    assert {view.state for view in supervisor.views()} == {S.STOPPED}


async def test_on_a_cpu_each_has_cores_and_a_cache_of_its_own(house: House) -> None:
    house.launcher.devices = (Device("cpu", "cpu", 100, cores=(3, 4, 5)),)
    for name in ("one", "two"):
        house.launcher.fits[name] = Fitted((Option("cpu", 1, cores=1),), kv_cache=7)
    supervisor = await house.start(one=engine(), two=engine())
    await ready(supervisor, "one")
    await ready(supervisor, "two")
    assert dict(house.launcher.places) == {
        "one": Placement("cpu", cores=(3,), kv_cache=7),
        "two": Placement("cpu", cores=(4,), kv_cache=7),
    }


async def test_memory_that_is_used_is_seen(house: House) -> None:
    supervisor = await house.start(one=engine(), two=engine(load="request"))
    await ready(supervisor, "one")
    await supervisor._usage.look()
    view = supervisor.view("one")
    assert view is not None
    assert view.used is not None
    assert 2**20 < view.used < 2**30
    labels = {"engine": "one", "device": "cpu", "kind": "used"}
    assert house.count("roundhouse_engine_memory_bytes", **labels) == view.used
    assert house.count("roundhouse_device_memory_bytes", device="cpu", kind="used") == view.used
    await supervisor.unload("one")
    await supervisor._usage.look()
    assert house.count("roundhouse_engine_memory_bytes", **labels) == 0
    view = supervisor.view("one")
    assert view is not None
    assert view.used is None
    await supervisor.apply({"two": engine(load="request")}, {})
    await supervisor._usage.look()
    assert house.metrics.registry.get_sample_value("roundhouse_engine_memory_bytes", labels) is None


async def test_one_that_died_keeps_no_memory_from_others_until_it_starts_again(
    house: House,
) -> None:
    house.launcher.devices = (Device("cuda:0", "cuda", 1), Device("cpu", "cpu", 100))
    house.launcher.fits |= {"one": needs(1), "two": needs(1)}
    house.launcher.scripts["one"] = {"exit": 1}
    house.policy = replace(QUICK, first=3600, cap=3600)
    supervisor = await house.start(one=engine(load="request"), two=engine(load="request"))
    dying = asyncio.create_task(supervisor.wait_ready("one", 20))
    await until(supervisor, "one", lambda v: v.state is S.BACKOFF and v.pid is None)
    assert (await supervisor.wait_ready("two", 20)).state is S.READY
    house.launcher.scripts.clear()
    await supervisor.load("one")  # its pause is over
    assert (await dying).state is S.READY
