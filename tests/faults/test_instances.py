"""An engine that runs twice: each instance is a target of its own, and one that dies takes nobody
with it whom the other can answer. The real supervisor over fake engines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import yaml

from server.engines.control import Control
from server.engines.state import EngineState, Instance
from tests.engines.conftest import FakeLauncher, nothing_left, tell, until
from tests.faults.conftest import House, answered_by, events_of
from tests.faults.test_engines import (
    ALONE,
    ENGINE,
    HELD,
    Start,
    begun,
    is_ready,
    launcher,
    start,
)

__all__ = ["launcher", "nothing_left", "start"]

POISON = {"messages": [{"role": "user", "content": "poison"}]}


async def both(house: House, *before: int) -> tuple[Instance, ...]:
    """Both instances, once they are ready, none of these generations among them."""
    supervisor = house.server.supervisor
    async with asyncio.timeout(20):
        with supervisor.subscribe() as feed:
            async for view in feed:
                ready = supervisor.instances("local")
                new = all(one.generation not in before for one in ready)
                if view.name == "local" and len(ready) == 2 and new:
                    return ready
    raise AssertionError("the feed ended")


async def ask(one: Instance, path: str) -> Any:
    assert one.socket is not None
    async with Control(one.socket) as control:
        _, body = await control.get(path, 5)
    return json.loads(body) if body.startswith(b"{") else body.decode()


async def working(count: int, *instances: Instance) -> None:
    """Until each of them says that it works on so many."""
    text = f'vllm:num_requests_running{{engine="0",model_name="fake"}} {count}.0'
    async with asyncio.timeout(20):
        for one in instances:
            while text not in await ask(one, "/metrics"):
                await asyncio.sleep(0.01)  # a process of its own sends no events


async def test_requests_are_spread_over_its_instances(start: Start, launcher: FakeLauncher) -> None:
    house = await start(replicas=2)
    instances = await both(house)
    assert len({one.socket for one in instances}) == 2
    held = [asyncio.create_task(house.ask(**ALONE, **HELD)) for _ in range(4)]
    await working(2, *instances)
    count = house.server.services.dispatcher.in_flight
    assert [count("engine/local@0"), count("engine/local@1"), count("engine/local")] == [2, 2, 0]
    for one in instances:
        await ask(one, "/do/finish")
    for answer in await asyncio.gather(*held):
        answered_by(answer, ENGINE)
    assert await house.metric("attempts_total", target=ENGINE, outcome="ok") == 4


async def test_what_one_loses_the_other_answers(start: Start, launcher: FakeLauncher) -> None:
    house = await start(replicas=2)
    instances = await both(house)
    held = [asyncio.create_task(house.ask(**ALONE, **HELD)) for _ in range(2)]
    await working(1, *instances)
    dies, stays = instances
    launcher.scripts["local"] = {}
    assert dies.pid is not None
    os.kill(dies.pid, signal.SIGKILL)
    await working(2, stays)
    await ask(stays, "/do/finish")
    for answer in await asyncio.gather(*held):
        answered_by(answer, ENGINE)
        assert int(answer.headers["x-roundhouse-attempts"]) <= 2
    again = await both(house, dies.generation)
    assert {one.replica for one in again} == {0, 1}
    assert await house.metric("engine_restarts_total", engine="local") == 1
    assert not house.server.services.dispatcher.suspects.any


async def test_both_die_of_it_once_at_most(start: Start, launcher: FakeLauncher) -> None:
    house = await start(replicas=2)
    before = [one.generation for one in await both(house)]
    refused = await house.ask(**ALONE, **POISON)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["code"] == "request_crashed_engine"
    assert refused.headers["x-roundhouse-attempts"] == "2"
    await both(house, *before)
    assert await house.metric("engine_restarts_total", engine="local") == 2
    answered_by(await house.ask(**ALONE), ENGINE)


async def test_with_no_instance_left_a_request_waits_for_the_first(
    start: Start, launcher: FakeLauncher, tmp_path: Path
) -> None:
    house = await start(replicas=2)
    instances = await both(house)
    launcher.scripts["local"] = {"gate": str(tmp_path / "gate")}
    for one in instances:
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
    while house.server.supervisor.instances("local"):
        await asyncio.sleep(0.01)
    waits = asyncio.create_task(house.ask(**ALONE))
    while not await house.metric_now("engine_waiting_requests", engine="local"):
        await asyncio.sleep(0.01)
    (tmp_path / "gate").touch()
    answered_by(await waits, ENGINE)


async def test_an_engine_that_was_taken_out_and_comes_back_ends_its_streams_first(
    start: Start, launcher: FakeLauncher
) -> None:
    house = await start(stop_timeout="20s")
    view = await is_ready(house)
    client = await begun(house)
    whole = house.path.read_text()
    rest = yaml.safe_load(whole)
    del rest["engines"], rest["models"]["alone"], rest["models"]["m"]["targets"][0]
    await house.write(rest)
    assert (await house.server.reload()).result == "ok"
    house.path.write_text(whole)
    assert (await house.server.reload()).result == "ok"
    again = await until(
        house.server.supervisor, "local", lambda v: v.stage == "its last process is stopping"
    )
    assert [(one.generation, one.state) for one in again.instances] == [
        (view.generation, EngineState.DRAINING)
    ]
    await tell(view, "finish")
    assert (await events_of(client))[-1] == b"data: [DONE]"
    client.close()
    await is_ready(house, view.generation)
    assert await house.metric("suspects_total") == 0
