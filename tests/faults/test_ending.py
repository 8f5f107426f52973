"""SIGTERM under load: unready, no new connections, streams finish, the rest hear of it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from tests.fakes.client import RawClient
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_late,
    chat_answer,
    chat_stream,
)
from tests.faults.conftest import ASK, CHAT, ONE, answered_by, broken, config_of, events_of
from tests.faults.process import Served, served

STREAM = {**ASK, "stream": True}


async def refuses(server: Served) -> None:
    """Until the public listener is closed."""
    while True:
        try:
            async with RawClient(port=server.port):
                await asyncio.sleep(0.01)  # it is a process of its own, which sends no events
        except ConnectionError:
            return


async def begun(server: Served, upstream: ScriptedUpstream) -> RawClient:
    """A client whose stream has begun."""
    client = RawClient(port=server.port)
    await client.connect()
    await client.post(CHAT, STREAM)
    assert (await client.read_head()).status == 200
    await client.read_event()
    return client


async def test_streams_finish_and_whole_answers_too(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path
) -> None:
    gates, late = [Gate(1) for _ in range(20)], asyncio.Event()
    one.queue(*(chat_stream(["a", "b"], gate=gate) for gate in gates))
    one.queue(*[answer_late(late, chat_answer())] * 5)
    config = config_of(one, two, server={"timeouts": {"drain": "60s"}})
    async with (
        served(tmp_path, config) as server,
        httpx.AsyncClient(timeout=60) as http,
        RawClient(port=server.port) as idle,
    ):
        clients = [await begun(server, one) for _ in range(20)]
        whole = [asyncio.create_task(http.post(f"{server.url}{CHAT}", json=ASK)) for _ in range(5)]
        for _ in range(25):
            await one.next_request()
        server.signal(signal.SIGTERM)
        await refuses(server)
        await idle.closed()
        while not await server.metric("drain_seconds", http):
            await asyncio.sleep(0.01)
        assert await server.metric("requests_in_flight", http) == 25
        for gate in gates:
            gate.open()
        for client in clients:
            events = await events_of(client)
            assert events[-1] == b"data: [DONE]"
            assert b'"b"' in b"".join(events)
            client.close()
        assert await server.metric("stream_end_total", http, reason="done") == 20
        assert await server.metric("stream_end_total", http) == 20
        late.set()
        for answer in await asyncio.gather(*whole):
            answered_by(answer, ONE)
        assert await server.process.wait() == 0


@pytest.mark.parametrize("signals", [1, 2])
async def test_what_outlives_the_drain_hears_of_it(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path, signals: int
) -> None:
    """A second signal ends the drain at once."""
    one.queue(*(chat_stream(["a", "b"], gate=Gate(1)) for _ in range(10)))
    one.queue(*[answer_late(Gate(), chat_answer())] * 5)
    drain = "300ms" if signals == 1 else "60s"
    config = config_of(one, two, server={"timeouts": {"drain": drain}})
    async with (
        served(tmp_path, config) as server,
        httpx.AsyncClient(timeout=60) as http,
    ):
        clients = [await begun(server, one) for _ in range(10)]
        whole = [asyncio.create_task(http.post(f"{server.url}{CHAT}", json=ASK)) for _ in range(5)]
        for _ in range(15):
            await one.next_request()
        server.signal(signal.SIGTERM)
        if signals == 2:
            await refuses(server)
            server.signal(signal.SIGTERM)
        for client in clients:
            assert broken(await events_of(client))["code"] == "shutting_down"
            client.close()
        for answer in await asyncio.gather(*whole):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
            assert answer.headers["retry-after"] == "5"
        assert await server.process.wait() == 0
    for exchange in one.requests:
        await exchange.disconnected.wait()
    assert two.requests == []


async def test_who_does_not_know_yet_is_still_served(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path: Path
) -> None:
    """A load balancer needs time to see that the server is unready, and sends on meanwhile."""
    one.default = chat_answer("served")
    config = config_of(one, two, server={"timeouts": {"unready": "60s"}})
    async with served(tmp_path, config) as server, httpx.AsyncClient(timeout=60) as http:
        assert await server.metric("drain_seconds", http) == 0
        server.signal(signal.SIGTERM)
        while (await http.get(f"{server.url}/ready")).status_code == 200:
            await asyncio.sleep(0.01)
        async with httpx.AsyncClient(timeout=60) as fresh:
            answered_by(await fresh.post(f"{server.url}{CHAT}", json=ASK), ONE)
        assert (await http.get(f"{server.url}/health")).status_code == 200
        while not await server.metric("drain_seconds", http):
            await asyncio.sleep(0.01)
        assert await server.metric("shed_total", http) == 0
        server.signal(signal.SIGTERM)  # once more: at once
        assert await server.process.wait() == 0
