"""The supervisor's engines that stay or go by themselves: idle ones, pinned ones, groups, replicas,
and what operators and the config say."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from server.config.placement import Placement
from server.engines.placement import Device
from server.engines.state import EngineState
from server.engines.supervisor import Supervisor
from server.errors import EngineNotReady
from tests.engines.conftest import (
    QUICK,
    TWO_FIT,
    House,
    alive,
    engine,
    failed,
    gone,
    needs,
    ready,
    tell,
    until,
)

S = EngineState


@pytest.fixture
def room(house: House) -> House:
    """Two of the engines one, two and three fit."""
    house.launcher.devices = TWO_FIT
    for name in ("one", "two", "three"):
        house.launcher.fits[name] = needs(1)
    return house


def state(supervisor: Supervisor, name: str) -> EngineState:
    view = supervisor.view(name)
    assert view is not None
    return view.state


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
    assert await supervisor.wait_started() is None
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


# --- replicas -------------------------------------------------------------------------------------


async def test_replicas_are_placed_where_memory_is_free_and_fall_by_themselves(room: House) -> None:
    supervisor = await room.start(one=engine(replicas=3))
    await until(supervisor, "one", lambda v: len(v.instances) == 2)
    view = await until(
        supervisor, "one", lambda v: [one.state for one in v.instances] == [S.READY, S.READY]
    )
    assert [one.replica for one in supervisor.instances("one")] == [0, 1]
    assert len({one.socket for one in view.instances}) == 2
    assert view.planned == 2
    assert view.socket == view.instances[0].socket
    second = view.instances[1]
    supervisor.report_failure("one", second.generation)
    await tell(replace(view, socket=second.socket), "exit0")
    down = await until(supervisor, "one", lambda v: bool(v.error))
    assert down.state is S.READY
    assert down.error_reason == "crash"
    assert [one.replica for one in supervisor.instances("one")] == [0]
    again = await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    assert again.error is None
    assert again.restarts == 1
    assert again.instances[0].generation == view.instances[0].generation
    assert room.count("roundhouse_engine_restarts_total", engine="one", reason="exit") == 1


async def test_a_replica_makes_room_and_fewer_of_them_drain(room: House) -> None:
    supervisor = await room.start(one=engine(replicas=2), two=engine(load="request"))
    await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    await supervisor.wait_ready("two", 20)
    assert len(supervisor.instances("one")) == 1
    await supervisor.unload("two")
    await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    view = supervisor.view("one")
    assert view is not None
    room.busy["one@1"] = 1
    supervisor.used("one", 1)
    await supervisor.apply({"one": engine(replicas=1)}, {})
    draining = await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 1)
    assert draining.state is S.READY
    assert [one.state for one in draining.instances] == [S.READY, S.DRAINING]
    surplus = draining.instances[1].pid
    assert surplus is not None
    assert alive(surplus)
    room.busy["one@1"] = 0
    await until(supervisor, "one", lambda v: len(v.instances) == 1)
    assert not alive(surplus)
    assert supervisor.instances("one")[0].pid == view.instances[0].pid


async def test_of_fewer_replicas_one_that_died_is_neither_shown_nor_started(room: House) -> None:
    room.policy = replace(QUICK, first=60, cap=60)
    supervisor = await room.start(one=engine(replicas=2))
    view = await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    pid = view.instances[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(supervisor, "one", lambda v: bool(v.error) and v.instances[1].pid is None)
    await supervisor.apply({"one": engine(replicas=1)}, {})
    left = supervisor.view("one")
    assert left is not None
    assert [one.replica for one in left.instances] == [0]
    assert (left.state, left.error) == (S.READY, None)


async def test_of_replicas_the_last_wish_to_stay_counts_whichever_was_asked(room: House) -> None:
    supervisor = await room.start(one=engine(replicas=2))
    await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    supervisor.used("one", 0, math.inf)
    supervisor.used("one", 1)
    # Not before: the first one's time could be over while the second starts.
    await supervisor.apply({"one": engine(replicas=2, idle=0.2)}, {})
    await until(supervisor, "one", lambda v: v.state is S.STOPPED)


async def test_a_replica_that_is_given_up_leaves_the_others_to_their_work(
    room: House, tmp_path: Path
) -> None:
    supervisor = await room.start(one=engine(), two=engine(load="request"))
    view = await ready(supervisor, "one")
    room.launcher.scripts["one"] = {"exit": 2}
    await supervisor.apply({"one": engine(replicas=2)}, {})
    told = await until(supervisor, "one", lambda v: v.error_reason == "arguments")
    assert told.state is S.READY
    assert [one.state for one in told.instances] == [S.READY, S.FAILED]
    assert supervisor.first_error() is None
    assert (await supervisor.wait_ready("one", 0)).pid == view.pid
    assert room.launcher.launches == ["one", "one"]
    room.launcher.scripts["one"] = {}
    await supervisor.load("one")
    await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)


async def test_a_replica_without_memory_has_the_needs_counted_anew(room: House) -> None:
    supervisor = await room.start(one=engine(pinned=True), two=engine(load="request"))
    view = await ready(supervisor, "one")
    room.launcher.scripts["one"] = failed("memory")
    config = {"one": engine(pinned=True, replicas=2), "two": engine(load="request")}
    await supervisor.apply(config, {})
    await until(supervisor, "one", lambda v: v.error_reason == "memory")
    await supervisor.wait_ready("two", 20)
    assert room.launcher.fitted.count("one") == 2
    assert (await supervisor.wait_ready("one", 0)).pid == view.pid


async def test_a_replica_that_is_given_up_leaves_others_their_next_start(room: House) -> None:
    room.policy = replace(QUICK, first=60, cap=60, limit=2)
    supervisor = await room.start(one=engine(replicas=2))

    async def dies(replica: int) -> None:
        now = await until(supervisor, "one", lambda v: len(v.instances) > replica)
        pid = now.instances[replica].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(supervisor, "one", lambda v: v.instances[replica].pid is None)

    await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    await dies(0)
    await supervisor.load("one")  # at once
    await until(supervisor, "one", lambda v: len(supervisor.instances("one")) == 2)
    await dies(1)
    await dies(0)
    view = await until(supervisor, "one", lambda v: v.instances[0].state is S.FAILED)
    assert view.state is S.BACKOFF
    assert supervisor.hopeless("one") is None
    await supervisor.load("one")
    await ready(supervisor, "one")


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
