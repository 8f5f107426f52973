"""A whole server whose engines do not all fit: requests over HTTP make them take turns. The engines
are fakes, under the real launcher, supervisor and guards."""

from __future__ import annotations

import asyncio
import json
import random
import shlex
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.config.engine import PORT
from server.config.load import load
from server.engines.state import EngineState
from server.serving import Roundhouse
from tests.engines.conftest import FAKE, nothing_left, until

__all__ = ["nothing_left"]

NAMES = ("one", "two", "three")
GIB = 2**30
Serve = Callable[[str], Awaitable[Roundhouse]]


def config(home: Path, starvation: str) -> dict[str, Any]:
    """Three engines that take 1 GiB each, and room for two."""
    line = shlex.join([sys.executable, "-I", "-S", str(FAKE), PORT, json.dumps({})])
    one = {
        "runtime": "command", "cmd": line, "device": "cpu", "memory": "1GiB", "load": "request",
        "residency": 0, "stop_timeout": "1s", "health_interval": "1s",
    }  # fmt: skip
    return {
        "version": 1,
        "server": {"port": 0, "admin": "127.0.0.1:0", "home": str(home)},
        "placement": {"starvation": starvation, "drain": "2s", "memory": {"cpu": "2GiB"}},
        "engines": dict.fromkeys(NAMES, one),
    }


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts servers, by how long a request may be passed over."""
    async with AsyncExitStack() as stack:

        async def start(starvation: str) -> Roundhouse:
            path = tmp_path / "roundhouse.yaml"
            path.write_text(yaml.safe_dump(config(tmp_path / "home", starvation)))
            return await stack.enter_async_context(Roundhouse(load(path, environ={})))

        yield start


def body(name: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": text}], **more}


async def planned(server: Roundhouse) -> None:
    """Until cancelled: what is set aside is never more than there is."""
    with server.supervisor.subscribe() as feed:
        async for _ in feed:
            assert sum(view.planned for view in server.supervisor.views()) <= 2 * GIB


async def test_requests_for_three_of_which_two_fit_are_all_answered(serve: Serve) -> None:
    server = await serve("1s")
    watching = asyncio.create_task(planned(server))
    dice, statuses = random.Random(5), Counter[int]()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:

        async def client() -> None:
            for _ in range(4):
                said = await http.post("/v1/chat/completions", json=body(dice.choice(NAMES)))
                statuses[said.status_code] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())
    assert statuses == {200: 32}
    assert not watching.done()
    watching.cancel()
    metric = server.metrics.registry.get_sample_value
    swaps = sum(metric("roundhouse_engine_swaps_total", {"engine": name}) or 0 for name in NAMES)
    assert swaps >= 1
    labels = {"device": "cpu", "kind": "total"}
    assert metric("roundhouse_device_memory_bytes", labels) == 2 * GIB


async def test_a_stream_that_is_under_way_is_not_cut_by_who_waits(serve: Serve) -> None:
    server = await serve("1h")
    asked = body("one", stream=True)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=asked) as stream,
    ):
        lines = stream.aiter_lines()
        while not (await anext(lines)).startswith("data: {"):
            pass
        waiting = [
            asyncio.create_task(http.post("/v1/chat/completions", json=body(name)))
            for name in ("two", "three")
        ]
        answers = await asyncio.gather(*waiting)
        assert [answer.status_code for answer in answers] == [200, 200]
        view = server.supervisor.view("one")
        assert view is not None
        assert view.state is EngineState.READY
        async with httpx.AsyncClient(base_url=view.url) as engine:
            await engine.get("/do/finish")
        assert [line async for line in lines if line][-1] == "data: [DONE]"


async def test_a_request_says_how_long_its_engine_stays(serve: Serve) -> None:
    server = await serve("1h")
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        keep = {"x-roundhouse-keep-alive": "0"}
        said = await http.post("/v1/chat/completions", json=body("one"), headers=keep)
        assert said.status_code == 200
        await until(server.supervisor, "one", lambda v: v.state is EngineState.STOPPED)
        said = await http.post("/v1/chat/completions", json=body("one"))
        assert said.status_code == 200
