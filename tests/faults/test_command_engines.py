"""Engines of `runtime: command` through the whole server: answers, streams, deaths, hangs, programs
that are not there. The launcher, the guards and the programs are real."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from server.config.engine import PORT
from server.engines.control import Control
from server.engines.state import EngineState, EngineView
from server.errors import EngineError
from tests.engines.conftest import FAKE, alive, gone, nothing_left, ready, until
from tests.fakes.client import RawClient
from tests.fakes.upstream import ScriptedUpstream, chat_answer
from tests.faults.conftest import (
    ASK,
    CHAT,
    TWO,
    House,
    Serve,
    answered_by,
    broken,
    config_of,
    events_of,
)

__all__ = ["nothing_left"]

ENGINE = "engine/local"
ALONE = {"model": "alone"}
#: How a connection ends whose other end was killed.
CUT = {"upstream_reset", "upstream_truncated"}
Start = Callable[..., Awaitable[House]]


def cmd(**script: Any) -> str:
    return shlex.join([sys.executable, "-I", "-S", str(FAKE), PORT, json.dumps(script)])


@pytest.fixture
def start(serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream) -> Start:
    """A server with an engine: `m` has it first and `two` behind it, `alone` has nothing else."""

    async def started(line: str | None = None, **engine: Any) -> House:
        config = config_of(one, two)
        settings = {"health_interval": "100ms", "start_timeout": "20s", "stop_timeout": "1s"}
        command = {"runtime": "command", "cmd": line or cmd()}
        config["engines"] = {"local": {**command, **settings, **engine}}
        config["models"] = {
            "m": {"targets": [{"engine": "local"}, {"provider": "two", "model": "b"}]},
            "alone": {"targets": [{"engine": "local"}]},
        }
        return await serve(config)

    return started


async def is_ready(house: House, generation: int = 0) -> EngineView:
    return await ready(house.server.supervisor, "local", generation)


async def ask(view: EngineView, path: str) -> bytes:
    async with Control(None, url=view.url) as control:
        return (await control.get(path, 5))[1]


async def begun(house: House) -> RawClient:
    """A client whose stream has begun."""
    client = RawClient(port=house.port)
    await client.connect()
    await client.post(CHAT, {**ASK, **ALONE, "stream": True})
    assert (await client.read_head()).status == 200
    await client.read_event()
    return client


def failed(answer: httpx.Response) -> None:
    """A client hears that the engine has failed, and of no file or program."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "engine_failed")
    assert "/" not in error["message"]
    assert "no-such-program" not in answer.text


@pytest.mark.parametrize("plain", [False, True])
async def test_a_chat_and_a_stream(start: Start, plain: bool) -> None:
    house = await start(cmd(plain=plain))
    view = await is_ready(house)
    answered_by(await house.ask(), ENGINE)
    client = await begun(house)
    await ask(view, "/do/finish")
    assert (await events_of(client))[-1] == b"data: [DONE]"
    client.close()
    assert await house.metric("attempts_total", target=ENGINE, outcome="ok") == 2


async def test_what_it_calls_the_model(start: Start) -> None:
    house = await start(model="org/its-own-name")
    view = await is_ready(house)
    answered_by(await house.ask(), ENGINE)
    assert json.loads(json.loads(await ask(view, "/pids"))["last"])["model"] == "org/its-own-name"


async def test_the_first_request_waits_for_a_slow_start(start: Start) -> None:
    house = await start(cmd(plain=True), load="request")
    answered_by(await house.ask(**ALONE), ENGINE)


async def test_a_death_ends_its_streams_and_it_comes_back(
    start: Start, two: ScriptedUpstream
) -> None:
    two.default = chat_answer("from two")
    house = await start(cmd(children=2, strays=1), health_interval="1h")
    view = await is_ready(house)
    pids = json.loads(await ask(view, "/pids"))
    client = await begun(house)
    os.kill(pids["self"], signal.SIGKILL)
    assert broken(await events_of(client))["code"] in CUT
    client.close()
    answered_by(await house.ask(), TWO)
    await gone(*pids["children"], *pids["strays"])
    again = await is_ready(house, view.generation)
    assert again.url != view.url
    answered_by(await house.ask(**ALONE), ENGINE)
    assert await house.metric("engine_restarts_total", engine="local", reason="killed") == 1


async def test_a_hang_is_killed(start: Start) -> None:
    house = await start(cmd(deaf=True))
    view = await is_ready(house)
    client = await begun(house)
    assert view.pid is not None
    os.kill(view.pid, signal.SIGSTOP)
    assert broken(await events_of(client))["code"] in CUT
    client.close()
    await is_ready(house, view.generation)
    assert await house.metric("engine_restarts_total", engine="local", reason="hang") == 1


async def test_a_crash_loop_is_told_to_operators_and_not_to_clients(
    start: Start, two: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.default = chat_answer("from two")
    lines = ["error: failed to load model, '/secret/place/model.gguf'"]
    house = await start(cmd(say=lines, exit=1), load="request")
    failed(await house.ask(**ALONE))
    answered_by(await house.ask(), TWO)
    told = (await house.admin("GET", "/engines")).json()["engines"][0]
    assert (told["state"], told["error_reason"]) == ("failed", "weights")
    assert "It cannot load its weights: '/secret/place/model.gguf'." in told["error"]


async def test_a_program_that_is_not_there(start: Start) -> None:
    with pytest.raises(EngineError, match="no program 'no-such-program'") as caught:
        await start("no-such-program ${PORT}")
    assert (caught.value.exit_code, caught.value.reason) == (4, "environment")


async def test_one_that_is_not_there_and_not_asked_for_is_in_nobodys_way(
    start: Start, two: ScriptedUpstream
) -> None:
    two.default = chat_answer("from two")
    with capture_logs() as logs:
        house = await start("no-such-program ${PORT}", load="request")
    (told,) = [one["advice"] for one in logs if one["event"] == "placement_advice"]
    assert "There is no program 'no-such-program'" in told
    failed(await house.ask(**ALONE))
    answered_by(await house.ask(), TWO)
    view = house.server.supervisor.view("local")
    assert view is not None
    assert "no program 'no-such-program'" in (view.error or "")


async def test_a_program_that_a_shell_does_not_find(start: Start) -> None:
    house = await start("sh -c 'exec no-such-program ${PORT}'", load="request")
    failed(await house.ask(**ALONE))
    view = await until(
        house.server.supervisor, "local", lambda seen: seen.state is EngineState.FAILED
    )
    assert "no-such-program" in (view.error or "")


async def test_a_stop_leaves_nothing_of_one_that_ignores_sigterm(start: Start) -> None:
    house = await start(cmd(deaf=True, children=2, strays=2))
    view = await is_ready(house)
    pids = json.loads(await ask(view, "/pids"))
    assert (await house.admin("POST", "/engines/local/unload")).status_code == 200
    assert not any(alive(pid) for pid in (pids["self"], *pids["children"], *pids["strays"]))
