"""File descriptors run out: requests are shed before the last one is gone, /health answers, and it
passes. Our own want is no fault of a target's: no fallback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from server.transport import descriptors
from tests.fakes.client import RawClient
from tests.fakes.upstream import Gate, ScriptedUpstream, answer_late, chat_answer, chat_stream
from tests.faults.conftest import (
    ASK,
    CHAT,
    ONE,
    TWO,
    House,
    Serve,
    answered_by,
    config_of,
    events_of,
)
from tests.faults.process import PROGRAM, served


@contextlib.contextmanager
def only(more: int) -> Iterator[None]:
    """This process may have so many descriptors more than it has now."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def shed(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_descriptors")
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_shed_before_the_last_one_is_gone(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream, stream: bool
) -> None:
    one.default = chat_stream(["from one"]) if stream else chat_answer("from one")
    two.default = chat_answer("from two")
    with only(descriptors.RESERVE):
        shed(await house.ask(stream=stream))
        async with httpx.AsyncClient() as fresh:  # a new client is heard, on both listeners
            for url in (house.server.url, house.server.admin_url):
                assert (await fresh.get(f"{url}/health")).status_code == 200
        assert await house.metric("shed_total", reason="fd") == 1
    assert one.accepted.count == two.accepted.count == 0
    answered_by(await house.ask(stream=stream), ONE)
    assert await house.metric("shed_total", reason="fd") == 1
    assert await house.metric("fallbacks_total") == 0
    assert await house.metric("requests_total", model="m", status="503") == 1
    assert await house.metric("requests_total", model="m", status="200") == 1


async def kept(house: House, one: ScriptedUpstream, number: int) -> None:
    """So many connections to the first target, all of them idle."""
    gate = Gate()
    one.queue(*[chat_answer("from one", gate=gate)] * number)
    asked = [asyncio.create_task(house.ask()) for _ in range(number)]
    await one.accepted.at_least(number)
    gate.open()
    for answer in await asyncio.gather(*asked):
        answered_by(answer, ONE)
    assert one.open_connections == number


async def test_what_is_connected_goes_on(house: House, one: ScriptedUpstream) -> None:
    """Streams under way, and requests for which a connection is kept."""
    await kept(house, one, 2)
    gate = Gate(2)
    one.queue(chat_stream(["a", "b"], gate=gate), chat_answer("over the other one"))
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        with only(descriptors.RESERVE):
            answered_by(await house.ask(), ONE)
            gate.open()
            assert (await events_of(client))[-1] == b"data: [DONE]"
    assert await house.metric("shed_total") == 0


async def test_idle_connections_are_given_up_first(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """A provider that nobody asks any more does not keep others from being asked."""
    two.default = chat_answer("from two")
    await kept(house, one, 4)
    with only(descriptors.RESERVE):
        assert (await house.ask(model="two/x")).status_code == 200
        for connection in one.connections:
            await connection.lost.wait()
    assert await house.metric("shed_total") == 0


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_none_at_all(
    serve: Serve,
    one: ScriptedUpstream,
    two: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """The last one goes between the look and the connect: EMFILE itself."""
    house = await serve(config_of(f"http://{name}:{one.port}", two))
    assert (await house.get("/health")).status_code == 200  # connected
    await house.metric("requests_total")
    one.default = chat_answer("from one")
    look = descriptors.spare
    looks = iter([True])
    monkeypatch.setattr(descriptors, "spare", lambda: next(looks, None) or look())
    with only(0):
        shed(await house.ask())
        assert (await house.get("/health")).status_code == 200
        assert await house.metric("shed_total", reason="fd") == 1
    assert two.accepted.count == 0
    answered_by(await house.ask(), ONE)
    assert await house.metric("fallbacks_total") == 0


async def test_a_real_server_recovers(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path
) -> None:
    one.default = chat_answer("from one")
    async with (
        served(tmp_path, config_of(one, two)) as server,
        httpx.AsyncClient(timeout=30) as http,
    ):
        plenty = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0]
        answered_by(await http.post(f"{server.url}{CHAT}", json=ASK), ONE)
        assert await server.metric("shed_total", http, reason="fd") == 0
        gate = Gate()  # what is kept is in use, so that a new connection is needed
        one.queue(chat_answer("late", gate=gate))
        late = asyncio.create_task(http.post(f"{server.url}{CHAT}", json=ASK))
        await one.next_request()
        await one.next_request()
        server.limit_files(server.open_files + descriptors.RESERVE // 2)
        for _ in range(20):
            shed(await http.post(f"{server.url}{CHAT}", json=ASK))
            async with httpx.AsyncClient() as fresh:
                assert (await fresh.get(f"{server.url}/health")).status_code == 200
        assert await server.metric("shed_total", http, reason="fd") == 20
        gate.open()
        answered_by(await late, ONE)
        server.limit_files(plenty)
        answered_by(await http.post(f"{server.url}{CHAT}", json=ASK), ONE)
        assert await server.metric("attempts_total", http, target=TWO) == 0
        server.signal()
        assert await server.process.wait() == 0


async def test_a_flood_of_clients_leaves_some(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path
) -> None:
    """With few descriptors there are few places for clients: a connection for each to an upstream
    fits beside them, and the admin listener still hears."""
    few = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
    places = (256 - 128) // 2
    gate = Gate()
    one.default = answer_late(gate, chat_answer("from one"))
    async with (
        served(tmp_path, config_of(one, two), program=few + PROGRAM) as server,
        httpx.AsyncClient(timeout=30) as admin,
        AsyncExitStack() as stack,
    ):
        clients = []
        for _ in range(places):
            client = await stack.enter_async_context(RawClient(port=server.port))
            await client.post(CHAT, ASK)
            await one.next_request()
            clients.append(client)
        for _ in range(20):
            async with RawClient(port=server.port) as more:
                head = await more.read_head()
                assert (head.status, head.header("retry-after")) == (503, "1")
            assert (await admin.get(f"{server.admin_url}/health")).status_code == 200
        assert server.open_files < 256 - descriptors.RESERVE
        assert await server.metric("shed_total", admin, reason="connections") == 20
        assert await server.metric("shed_total", admin, reason="fd") == 0
        gate.open()
        for client in clients:
            assert (await client.read_head()).status == 200
            client.close()
        async with httpx.AsyncClient(timeout=30) as fresh:
            while (await fresh.get(f"{server.url}/health")).status_code != 200:
                await asyncio.sleep(0.01)  # until the server has seen them go
            answered_by(await fresh.post(f"{server.url}{CHAT}", json=ASK), ONE)
