"""The running server: reload under way, and the order of stopping."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvloop
import yaml

from server.config import additions
from server.config.additions import Additions
from server.config.load import load
from server.errors import BindError, EngineError
from server.serving import Roundhouse
from tests.api.conftest import *  # noqa: F403 - the fixtures of a whole server
from tests.api.conftest import ASK, Serve, config_of, port_of
from tests.fakes.client import RawClient
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_answer, chat_stream

CHAT = "/v1/chat/completions"


def write(server: Roundhouse, config: dict[str, Any]) -> None:
    server._loaded.path.write_text(yaml.safe_dump(config, sort_keys=False))  # type: ignore[union-attr]


async def until_closed(server: Roundhouse) -> None:
    """Until no new connection is taken."""
    while server._listeners[0].socket.fileno() >= 0:
        await asyncio.sleep(0)


async def test_reload_swaps_and_leaves_requests_alone(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Any
) -> None:
    config = config_of(upstream)
    server = await serve(config)
    gate = Gate()
    upstream.queue(chat_stream(["a", "b"], gate=gate), chat_answer())
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await upstream.next_request()
        gate.release(2)
        await client.read_head()
        config["models"]["new"] = config["models"].pop("m")
        del config["models"]["alias-of-m"]
        write(server, config)
        assert server.admin_url
        async with httpx.AsyncClient(base_url=server.admin_url) as admin:
            report = await admin.post("/reload")
            assert report.json()["result"] == "ok", report.text
        gate.open()
        events = []
        while event := await client.read_event():
            events.append(event)
        assert events[-1] == b"data: [DONE]"
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.post(CHAT, json=ASK)).status_code == 404
        assert (await http.post(CHAT, json={**ASK, "model": "new"})).status_code == 200
    value = server.metrics.registry.get_sample_value
    assert value("roundhouse_config_reloads_total", {"result": "ok"}) == 1


async def test_bad_config_changes_nothing(serve: Serve, upstream: ScriptedUpstream) -> None:
    config = config_of(upstream)
    server = await serve(config)
    before = server.services.state
    config["models"]["m"]["fallback"] = ["x"]
    write(server, config)
    assert server.admin_url
    async with httpx.AsyncClient(base_url=server.admin_url) as admin:
        refused = await admin.post("/reload")
    assert refused.status_code == 400
    assert "fallbacks" in refused.json()["error"]["message"]
    assert server.services.state is before
    value = server.metrics.registry.get_sample_value
    assert value("roundhouse_config_reloads_total", {"result": "rejected"}) == 1


async def test_an_addition_whose_weights_are_gone_is_in_nobodys_way(
    upstream: ScriptedUpstream, tmp_path: Any
) -> None:
    config = config_of(upstream, server={"home": str(tmp_path / "home")})
    file = tmp_path / "roundhouse.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    gone = {"big": {"weights": str(tmp_path / "gone"), "load": "request"}}
    additions.write(tmp_path / "home", Additions(gone))
    upstream.queue(chat_answer())
    async with Roundhouse(load(file, environ={}).with_state()) as server:
        assert "big" in server.services.state.models
        async with httpx.AsyncClient(base_url=server.url) as http:
            assert (await http.post(CHAT, json=ASK)).status_code == 200
        config["models"]["new"] = {"alias": "m"}
        write(server, config)
        assert (await server.reload()).changed == ["models.new"]
        # Who adds such a one now is told.
        other = {"other": {"weights": str(tmp_path / "none"), "load": "request"}}
        with pytest.raises(EngineError, match="none"):
            await server.watcher.add(Additions({**gone, **other}))
    assert additions.read(tmp_path / "home").additions == Additions(gone)


async def test_series_of_removed_models_go(serve: Serve, upstream: ScriptedUpstream) -> None:
    config = config_of(upstream)
    server = await serve(config)
    upstream.queue(chat_answer())
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.post(CHAT, json=ASK)
    labels = {"endpoint": "chat", "model": "m", "status": "200"}
    value = server.metrics.registry.get_sample_value
    assert value("roundhouse_requests_total", labels) == 1
    config["models"] = {"other-name": config["models"]["m"]}
    write(server, config)
    assert (await server.reload()).result == "ok"
    assert value("roundhouse_requests_total", labels) is None


async def test_drain_lets_streams_finish(upstream: ScriptedUpstream, tmp_path: Any) -> None:
    path = tmp_path / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(config_of(upstream, server={"home": str(tmp_path)})))
    gate = Gate()
    upstream.queue(chat_stream(["a", "b"], gate=gate))
    server = Roundhouse(load(path, environ={}))
    running, leave = asyncio.Event(), asyncio.Event()

    async def life() -> None:
        async with server:
            running.set()
            await leave.wait()

    task = asyncio.create_task(life())
    await running.wait()
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await upstream.next_request()
        gate.release(2)
        await client.read_head()
        leave.set()
        await until_closed(server)
        gate.open()
        events = []
        while event := await client.read_event():
            events.append(event)
        assert events[-1] == b"data: [DONE]"
    await asyncio.wait_for(task, 10)


async def test_who_has_a_connection_may_ask_once_more(
    upstream: ScriptedUpstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was on its way when the server closed is answered, on a connection that was
    idle, that was new, or whose stream had promised to keep it."""
    monkeypatch.setattr("server.serving._LINGER", 60.0)
    path = tmp_path / "roundhouse.yaml"
    settings = {"home": str(tmp_path), "timeouts": {"drain": "60s"}}
    path.write_text(yaml.safe_dump(config_of(upstream, server=settings)))
    gate = Gate()
    upstream.queue(chat_answer(), chat_stream(["a", "b"], gate=gate))
    upstream.default = chat_answer()
    server = Roundhouse(load(path, environ={}))
    async with asyncio.TaskGroup() as group:
        await server.__aenter__()
        port = port_of(server)
        async with (
            RawClient(port=port) as idle,
            RawClient(port=port) as new,
            RawClient(port=port) as busy,
        ):
            await idle.post(CHAT, ASK)
            assert (await idle.read_head()).header("connection") is None
            await idle.read_body()
            await busy.post(CHAT, {**ASK, "stream": True})
            gate.release(2)
            assert (await busy.read_head()).header("connection") is None
            leaving = group.create_task(server.__aexit__(None, None, None))
            await until_closed(server)
            gate.open()
            assert (await busy.read_body()).endswith(b"data: [DONE]\n\n")
            for client in (idle, new, busy):
                assert not leaving.done()
                await client.post(CHAT, ASK)
                head = await client.read_head()
                assert (head.status, head.header("connection")) == (200, "close")
                await client.read_body()
                await client.closed()
        await leaving


async def test_the_date_goes_on_while_it_drains(
    upstream: ScriptedUpstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.serving._LINGER", 60.0)
    path = tmp_path / "roundhouse.yaml"
    settings = {"home": str(tmp_path), "timeouts": {"drain": "60s"}}
    path.write_text(yaml.safe_dump(config_of(upstream, server=settings)))
    server = Roundhouse(load(path, environ={}))
    await server.__aenter__()
    async with RawClient(port=port_of(server)) as late:
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        await until_closed(server)
        monkeypatch.setattr("uvicorn.server.time", SimpleNamespace(time=lambda: 0.0))
        state = server._listeners[0]._server.server_state
        before = state.default_headers
        async with asyncio.timeout(30):
            while state.default_headers == before:
                await asyncio.sleep(0)
        await late.get("/health")
        assert (await late.read_head()).header("date") == "Thu, 01 Jan 1970 00:00:00 GMT"
        await late.read_body()
    await leaving


@pytest.mark.parametrize("turns", range(6))
def test_who_was_let_in_as_it_closed_is_answered(tmp_path: Path, turns: int) -> None:
    """So many of the loop's turns after it has connected the server may have the connection, and
    not know it yet. In the loop that it has elsewhere: how many they are depends on that."""
    path = tmp_path / "roundhouse.yaml"
    nobody: Any = SimpleNamespace(url="http://127.0.0.1:9")
    path.write_text(yaml.safe_dump(config_of(nobody, server={"home": str(tmp_path)})))

    async def life() -> socket.socket:
        async with Roundhouse(load(path, environ={})) as server:
            late = socket.create_connection(("127.0.0.1", port_of(server)))
            late.sendall(b"POST %b HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}" % CHAT.encode())
            for _ in range(turns):
                await asyncio.sleep(0)
        return late

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, runner.run(life()) as late:
        late.settimeout(30)
        try:
            answer = late.recv(12)
        except ConnectionResetError:  # the kernel had it, and nobody took it
            answer = b""
    assert answer in (b"HTTP/1.1 415", b"")  # it was heard, and no 503


async def test_idle_connections_do_not_hold_up_the_end(
    upstream: ScriptedUpstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nobody has used for a while is closed at once, also with a long drain."""
    monkeypatch.setattr("server.serving._LINGER", 0.0)
    path = tmp_path / "roundhouse.yaml"
    settings = {"home": str(tmp_path), "timeouts": {"drain": "1h"}}
    path.write_text(yaml.safe_dump(config_of(upstream, server=settings)))
    upstream.default = chat_answer()
    async with AsyncExitStack() as stack:
        async with Roundhouse(load(path, environ={})) as server:
            new = await stack.enter_async_context(RawClient(port=port_of(server)))
            idle = await stack.enter_async_context(RawClient(port=port_of(server)))
            await idle.post(CHAT, ASK)
            await idle.read_head()
            await idle.read_body()
        await idle.closed()
        await new.closed()


async def test_nobody_is_waited_for_in_a_hurry(
    upstream: ScriptedUpstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.serving._LINGER", 3600.0)
    monkeypatch.setattr("server.serving._LAST_WORDS", 3600.0)
    path = tmp_path / "roundhouse.yaml"
    settings = {"home": str(tmp_path), "timeouts": {"drain": "1h"}}
    path.write_text(yaml.safe_dump(config_of(upstream, server=settings)))
    async with AsyncExitStack() as stack:
        async with Roundhouse(load(path, environ={})) as server:
            idle = await stack.enter_async_context(RawClient(port=port_of(server)))
            await idle.get("/health")
            await idle.read_head()
            await idle.read_body()
            server.stop()
            server.stop()
        await idle.closed()


async def test_who_is_let_in_at_the_last_moment_does_not_stay(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was taken just before, and made known just after, is an idle one."""
    monkeypatch.setattr("server.serving._LINGER", 0.0)
    server = await serve(config_of(upstream, server={"timeouts": {"header": "1h"}}))
    server._listeners[0]._protocol.stopping = True
    async with RawClient(port=port_of(server)) as late:
        await late.closed()


async def test_while_unready_every_answer_sends_its_client_elsewhere(
    upstream: ScriptedUpstream, tmp_path: Any
) -> None:
    path = tmp_path / "roundhouse.yaml"
    settings = {"home": str(tmp_path), "timeouts": {"unready": "1h"}}
    path.write_text(yaml.safe_dump(config_of(upstream, server=settings)))
    upstream.default = chat_answer()
    server = Roundhouse(load(path, environ={}))
    await server.__aenter__()
    async with RawClient(port=port_of(server)) as old:
        await old.get("/health")
        assert (await old.read_head()).header("connection") is None
        await old.read_body()
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        while server.services.ready:
            await asyncio.sleep(0)
        async with RawClient(port=port_of(server)) as new:
            for client in (old, new):
                await client.post(CHAT, ASK)
                head = await client.read_head()
                assert (head.status, head.header("connection")) == (200, "close")
                await client.read_body()
                await client.closed()
    server.stop()
    server.stop()
    await leaving


async def test_a_stream_may_take_the_whole_drain(
    upstream: ScriptedUpstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for last words begins when the drain is over, not with it."""
    monkeypatch.setattr("server.serving._LAST_WORDS", 0.5)
    path = tmp_path / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(config_of(upstream, server={"home": str(tmp_path)})))
    gate = Gate(2)
    upstream.queue(chat_stream(["a", "b"], gate=gate))
    async with Roundhouse(load(path, environ={})) as server:
        client = RawClient(port=port_of(server))
        await client.connect()
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        asyncio.get_running_loop().call_later(2, gate.open)
    body = await client.read_body()
    client.close()
    assert body.endswith(b"data: [DONE]\n\n")


async def test_feeds_do_not_hold_up_the_end(serve: Serve, upstream: ScriptedUpstream) -> None:
    """A feed without an end, and a client that reads none of its answer, are cut."""
    upstream.queue(chat_answer("x" * 8_000_000))
    server = await serve(config_of(upstream))
    assert server.admin_url is not None
    async with (
        RawClient(port=int(server.admin_url.rpartition(":")[2])) as feed,
        RawClient(port=port_of(server), rcvbuf=4096) as silent,
    ):
        await feed.get("/events")
        assert (await feed.read_head()).status == 200
        silent.pause()
        await silent.post(CHAT, ASK)
        await upstream.next_request()
        await asyncio.wait_for(server.__aexit__(None, None, None), 6)
        assert not [one for one in server._listeners if one._server.server_state.connections]


async def test_what_outlives_the_drain_gets_an_error_event(
    upstream: ScriptedUpstream, tmp_path: Any
) -> None:
    path = tmp_path / "roundhouse.yaml"
    settings = {"home": str(tmp_path), "timeouts": {"drain": "50ms"}}
    path.write_text(yaml.safe_dump(config_of(upstream, server=settings)))
    gate = Gate(2)
    upstream.queue(chat_stream(["a", "b"], gate=gate))
    server = Roundhouse(load(path, environ={}))
    async with server:
        client = RawClient(port=port_of(server))
        await client.connect()
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        await client.read_event()
    events = []
    while event := await client.read_event():
        events.append(event)
    assert b'"shutting_down"' in events[-1]
    assert b"[DONE]" not in b"".join(events)
    client.close()
    value = server.metrics.registry.get_sample_value
    assert value("roundhouse_stream_end_total", {"model": "m", "reason": "shutdown"}) == 1


async def test_port_taken_leaves_nothing(serve: Serve, upstream: ScriptedUpstream) -> None:
    first = await serve(config_of(upstream))
    with pytest.raises(BindError, match="taken"):
        await serve(config_of(upstream, server={"port": port_of(first), "admin": None}))
