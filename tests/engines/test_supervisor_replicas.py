"""The supervisor's engines that run several times."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

from server.engines.state import EngineState
from tests.engines.conftest import (
    QUICK,
    House,
    alive,
    engine,
    failed,
    ready,
    tell,
    until,
)

S = EngineState


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
