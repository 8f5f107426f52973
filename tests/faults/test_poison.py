"""Requests that an engine dies of: they are found out and refused, and nobody beside them loses
anything. The real supervisor over fake engines, all on real sockets."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from server.engines.state import EngineState
from tests.engines.conftest import FakeLauncher, nothing_left, tell
from tests.fakes.client import RawClient
from tests.fakes.upstream import ScriptedUpstream, chat_answer
from tests.faults.conftest import ASK, CHAT, TWO, House, answered_by, broken, events_of
from tests.faults.test_engines import (
    ALONE,
    ENGINE,
    HELD,
    Start,
    begun,
    is_ready,
    launcher,
    running,
    start,
)

__all__ = ["launcher", "nothing_left", "start"]


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


POISON = says("poison")


def refused(answer: httpx.Response) -> None:
    """For what it did to engines: final for every client, with a reason."""
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("request_crashed_engine", "invalid_request_error")
    assert "retry-after" not in answer.headers


@asynccontextmanager
async def finishing(house: House) -> AsyncIterator[None]:
    """From the second on, engines let go what they hold."""

    async def follow() -> None:
        known = (await is_ready(house)).generation
        while True:
            view = await is_ready(house, known)
            known = view.generation
            await tell(view, "finish")

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def insists(house: House, **more: Any) -> httpx.Response:
    """A client as SDKs are: what may pass by itself is sent again. A request has three attempts,
    and a process that has just died may take one of them."""
    while True:
        answer = await house.ask(**ALONE, **more)
        if answer.status_code not in (502, 503):
            return answer


async def restarts(house: House) -> float:
    return await house.metric("engine_restarts_total", engine="local")


async def event(house: House, name: str) -> float:
    return await house.metric("suspects_total", engine="local", event=name)


async def test_after_two_deaths_it_is_refused_and_the_innocent_are_answered(
    start: Start, launcher: FakeLauncher
) -> None:
    house = await start(health_interval="1h")
    view = await is_ready(house)
    async with finishing(house):
        harmless = [
            asyncio.create_task(insists(house, **says(f"hold {number}"))) for number in range(3)
        ]
        await running(view, 3)
        refused(await insists(house, **POISON))
        for answer in await asyncio.gather(*harmless):
            answered_by(answer, ENGINE)
    # Who was beside it depends on who came back first.
    deaths = await restarts(house)
    assert deaths in (2, 3, 4)
    assert await event(house, "remembered") >= 4
    assert await event(house, "guilty") == 1
    await is_ready(house)
    refused(await house.ask(**ALONE, **POISON))
    refused(await house.ask(**ALONE, **POISON, stream=False))
    answered_by(await house.ask(**ALONE, **says("something else")), ENGINE)
    assert await restarts(house) == deaths
    assert await event(house, "refused") >= 2
    assert await house.metric("engine_state", engine="local", state="ready") == 1


async def test_a_provider_still_gets_it(
    start: Start, launcher: FakeLauncher, two: ScriptedUpstream
) -> None:
    """Nothing of ours dies of it there."""
    two.default = chat_answer("from two")
    house = await start(health_interval="1h")
    await is_ready(house)
    refused(await house.ask(**ALONE, **POISON))
    await is_ready(house)
    answered_by(await house.ask(**POISON), TWO)
    answered_by(await house.ask(**says("something else")), ENGINE)
    assert await restarts(house) == 2


async def test_streams_that_broke_count(start: Start, launcher: FakeLauncher) -> None:
    """After the commit point nobody tries anew but the client; its third try is refused."""
    house = await start(health_interval="1h")
    generation = 0
    for _ in range(2):
        view = await is_ready(house, generation)
        generation = view.generation
        client = await begun(house, **ALONE, **says("slow poison"))
        await tell(view, "finish")
        broken(await events_of(client))
        client.close()
    await is_ready(house, generation)
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, **ALONE, **says("slow poison"), "stream": True})
        assert (await client.read_head()).status == 400
        assert b"request_crashed_engine" in await client.read_body()
    assert await restarts(house) == 2


async def test_how_long_it_stays_is_told_when_a_request_is_sent(
    start: Start, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start()
    view = await is_ready(house)
    told: list[tuple[str, int, float | None]] = []
    monkeypatch.setattr(house.server.supervisor, "used", lambda *args: told.append(args))
    for stays in ("5m", -1, None):
        answered_by(await house.ask(**ALONE, keep_alive=stays), ENGINE)
    assert told == [("local", 0, 300.0), ("local", 0, math.inf), ("local", 0, None)]
    assert view.generation == (await is_ready(house)).generation


async def test_what_an_operator_kills_a_request_with_is_no_death(
    start: Start, launcher: FakeLauncher
) -> None:
    """A drain ends what does not end in time, and blames nobody."""
    house = await start(stop_timeout="50ms")
    view = await is_ready(house)
    whole = asyncio.create_task(house.ask(**ALONE, **HELD))
    await running(view, 1)
    assert (await house.admin("POST", "/engines/local/unload")).status_code in (200, 202)
    assert (await whole).status_code in (502, 503)
    assert not house.server.services.dispatcher.suspects.any


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_whoever_killed_it_its_requests_are_remembered_until_they_are_answered(
    start: Start, launcher: FakeLauncher, how: signal.Signals
) -> None:
    house = await start(health_misses=3)
    view = await is_ready(house)
    async with finishing(house):
        whole = asyncio.create_task(house.ask(**ALONE, **HELD))
        await running(view, 1)
        assert view.pid is not None
        os.kill(view.pid, how)
        answered_by(await whole, ENGINE)
    assert await event(house, "remembered") == 1
    assert await event(house, "suspected") == 0
    assert await event(house, "cleared") == 1
    assert not house.server.services.dispatcher.suspects.any
    state = house.server.supervisor.view("local")
    assert state is not None
    assert state.state is EngineState.READY
