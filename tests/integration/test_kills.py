"""kill -9 of everything that can be killed: clients hear of it, nothing is left, it comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest

from tests.fakes.client import RawClient
from tests.fakes.http1 import PeerGone
from tests.fakes.upstream import ScriptedUpstream, chat_answer
from tests.integration.stack import START, ServerProcess, until

pytestmark = pytest.mark.usefixtures("engine_environment")

ASK = {"messages": [{"role": "user", "content": "What is Roundhouse?"}]}
LONG = {**ASK, "ignore_eos": True, "max_tokens": 3500, "stream": True}
CHAT = "/v1/chat/completions"


@pytest.fixture
def server(pair: ServerProcess) -> ServerProcess:
    return pair


@pytest.fixture
async def backup(backup_port: int) -> AsyncIterator[None]:
    async with ScriptedUpstream(port=backup_port) as upstream:
        upstream.default = chat_answer("from the backup")
        yield


def victims(server: ServerProcess, engine: str) -> dict[str, psutil.Process]:
    """The engine's processes by what they are."""
    head, *others = server.engine_processes(engine)
    found = {"api_server": head}
    for process in others:
        title = " ".join(process.cmdline())
        if "EngineCore" in title:
            found["engine_core"] = process
        elif "Worker" in title:
            found["worker"] = process
    return found


async def killed(server: ServerProcess, engine: str, which: str) -> None:
    """Its stream ends with an error, whoever asks is answered, and it comes back."""
    before = server.engine_processes(engine)
    restarts = server.engines()[engine]["restarts"]
    or_backup = {**ASK, "model": f"{engine}-or-backup"}
    # One request that meets two deaths is refused.
    long = {**LONG, "model": engine, "user": which}
    async with RawClient(port=server.port) as stream:
        await stream.post(CHAT, long)
        assert (await stream.read_head()).status == 200
        await stream.read_event()
        whole = asyncio.create_task(
            asyncio.to_thread(
                httpx.post,
                f"{server.url}{CHAT}",
                json={**long, "stream": False, "max_tokens": 1000},
                timeout=START,
            )
        )
        await asyncio.to_thread(
            until,
            lambda: server.engines()[engine]["in_flight"] == 2,
            within=30,
            what="both requests at the engine",
        )
        dead = time.monotonic()
        victims(server, engine)[which].send_signal(signal.SIGKILL)
        # The open stream ends with an error event and no [DONE].
        last = b""
        try:
            while event := await asyncio.wait_for(stream.read_event(), 15):
                last = event
        except PeerGone:
            pytest.fail("the stream was cut without an error event")
        stream_ended = time.monotonic() - dead
        assert b'"error"' in last
        # In between the fallback answers, at once.
        between = await asyncio.to_thread(
            httpx.post, f"{server.url}{CHAT}", json=or_backup, timeout=30
        )
        assert between.json()["choices"][0]["message"]["content"] == "from the backup"
        assert between.headers["x-roundhouse-target"] == "backup/backup-model"
        assert between.headers["x-roundhouse-fallback-from"] == f"engine/{engine}"
        # No process of the dead engine is left.
        await asyncio.to_thread(
            until,
            lambda: not any(p.is_running() and p.status() != "zombie" for p in before),
            within=30,
            what="the old processes are gone",
        )
    await asyncio.to_thread(server.wait_ready, engine)
    back = time.monotonic() - dead
    # What was no stream waited for the engine, and was asked anew.
    answer = await whole
    whole_ended = time.monotonic() - dead
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["x-roundhouse-attempts"]) > 1
    print(
        f"{which}: stream ended {stream_ended:.2f} s, whole {whole_ended:.2f} s, back {back:.0f} s"
    )
    # Tenths of a second on an idle machine; what is asked is that nobody waits for a time-out.
    assert stream_ended < 15
    assert server.engines()[engine]["restarts"] == restarts + 1
    response = await asyncio.to_thread(
        httpx.post, f"{server.url}{CHAT}", json=or_backup, timeout=60
    )
    assert response.headers["x-roundhouse-target"] == f"engine/{engine}"


@pytest.mark.usefixtures("backup")
@pytest.mark.parametrize("which", [("worker", "engine_core"), ("api_server",)], ids=" and ".join)
async def test_engine_processes_killed(server: ServerProcess, which: tuple[str, ...]) -> None:
    """Of two engines at once: a start alone does not keep two cores busy."""
    server.wait_ready("one", "two")
    assert {*which} <= {*victims(server, "one")}
    await asyncio.gather(
        *(killed(server, *one) for one in zip(("one", "two"), which, strict=False))
    )


async def read_to_the_end(stream: RawClient) -> None:
    while await asyncio.wait_for(stream.read_event(), 15):
        pass


async def test_server_killed(server: ServerProcess) -> None:
    """The last of the tests that have the pair."""
    server.wait_ready("one", "two")
    family = server.descendants()
    assert len(family) >= 6
    async with RawClient(port=server.port) as stream:
        await stream.post(CHAT, {**LONG, "model": "one"})
        await stream.read_head()
        await stream.read_event()
        os.kill(server.pid, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises((PeerGone, ConnectionError)):
            await read_to_the_end(stream)
        assert time.monotonic() - killed < 15
    assert server.process is not None
    server.process.wait()
    await asyncio.to_thread(
        until,
        lambda: not any(p.is_running() for p in family),
        within=30,
        what="guards and engines are gone",
    )
