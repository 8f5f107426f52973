"""Upstream HTTP over real sockets: what arrives, what goes wrong, and what is left open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.errors import UpstreamError, UpstreamProtocol, UpstreamTooLarge
from server.transport import Transport
from server.transport.answer import Stage
from tests.fakes.faults import hang
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    before_body,
    finish_connection,
    interim,
    redirect,
    sse,
)
from tests.transport.asking import ask, upstream_wires, whole

# --- what goes out and comes in


async def test_request_and_answer(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(answer_bytes(200, b"hello", [("X-Two", "a"), ("X-Two", "b")]))
        response = await ask(transport, upstream, b'{"a":1}')
        assert (response.status, response.headers["x-two"]) == (200, "b")
        assert await response.read() == b"hello"
        assert await response.read() == b""
        sent = upstream.requests[0]
        assert (sent.method, sent.target, sent.body) == ("POST", "/v1/x", b'{"a":1}')
        names = sorted(name.lower() for name, _ in sent.headers)
        assert names == [
            "accept-encoding",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "x-one",
        ]
        assert sent.header("accept-encoding") == "identity"
        assert sent.header("content-type") == "application/json"


async def test_connections_are_reused(transport: Transport) -> None:
    async with ScriptedUpstream(answer_bytes(200, b"x")) as upstream:
        for _ in range(3):
            assert await whole(transport, upstream) == b"x"
        assert len(upstream.connections) == 1


async def test_a_stale_connection_is_not_used(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(finish_connection(answer_bytes(200, b"1")), answer_bytes(200, b"2"))
        assert await whole(transport, upstream) == b"1"
        await upstream.connections[0].lost.wait()
        assert await whole(transport, upstream) == b"2"


async def test_large_bodies_go_out_as_they_are(transport: Transport) -> None:
    body = b"x" * (4 << 20)
    async with ScriptedUpstream(answer_bytes(200, b"ok")) as upstream:
        assert await whole(transport, upstream, body) == b"ok"
        assert upstream.requests[0].body == body
        assert upstream.requests[0].header("content-length") == str(len(body))


async def test_large_answers_come_in_as_they_are(transport: Transport) -> None:
    body = bytes(range(256)) * 20_000
    async with ScriptedUpstream(answer_bytes(200, body)) as upstream:
        assert await whole(transport, upstream) == body
        response = await ask(transport, upstream)
        with pytest.raises(UpstreamProtocol, match="too large"):  # garbage
            await response.read_all(1000)
        response.close()


@pytest.mark.parametrize("body", [b"{" + b"x" * 1000, b"\r\n {" + b"x" * 1000, b" " * 1001])
async def test_an_answer_over_the_limit_is_no_garbage(transport: Transport, body: bytes) -> None:
    async with ScriptedUpstream(answer_bytes(200, body)) as upstream:
        response = await ask(transport, upstream)
        with pytest.raises(UpstreamTooLarge, match="too large"):
            await response.read_all(1000)
        response.close()


async def test_interim_answers_are_skipped(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(interim(answer_bytes(200, b"x"), times=3))
        assert await whole(transport, upstream) == b"x"


async def test_an_answer_before_the_body_was_read(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(before_body(answer_bytes(413, b"too large")))
        response = await ask(transport, upstream)
        assert response.status == 413
        assert await response.read_all(100) == b"too large"


async def test_redirects_are_not_followed(transport: Transport) -> None:
    async with ScriptedUpstream() as other, ScriptedUpstream() as upstream:
        upstream.queue(redirect(other.url))
        response = await ask(transport, upstream)
        assert (response.status, response.headers["location"]) == (307, other.url)
        response.close()
        assert other.requests == []


async def test_cookies_are_not_kept(transport: Transport) -> None:
    async with ScriptedUpstream(answer_bytes(200, b"", {"set-cookie": "a=b"})) as upstream:
        await whole(transport, upstream)
        await whole(transport, upstream)
        assert upstream.requests[1].header("cookie") is None


async def test_packed_answers_pass_as_they_are(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(answer_json(200, {"a": 1}, encoding="gzip"))
        assert (await whole(transport, upstream))[:2] == b"\x1f\x8b"


async def test_unix_sockets_and_forget(transport: Transport, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(answer_bytes(200, b"x"), uds=tmp_path / "a") as one,
        ScriptedUpstream(answer_bytes(200, b"y"), uds=tmp_path / "b") as two,
    ):
        for _ in range(2):
            assert await whole(transport, one) == b"x"
            assert await whole(transport, two) == b"y"
        assert (one.open_connections, two.open_connections) == (1, 1)
        await transport.forget(str(one.uds))
        await one.connections[0].peer_closed.wait()
        assert two.open_connections == 1
        await transport.forget("unknown")
        assert await whole(transport, one) == b"x"


async def test_forget_breaks_open_answers(transport: Transport, tmp_path: Path) -> None:
    async with ScriptedUpstream(sse(["1", hang]), uds=tmp_path / "a") as upstream:
        response = await ask(transport, upstream)
        assert await response.read() == b"data: 1\n\n"
        await transport.forget(str(upstream.uds))
        with pytest.raises(UpstreamError) as caught:
            await response.read()
        assert caught.value.outcome == "truncated"
        response.close()


async def test_close_leaves_nothing_open() -> None:
    transport = Transport()
    async with ScriptedUpstream() as upstream:
        upstream.queue(answer_bytes(200, b"x"), sse(["1", hang]), sse(["2", hang]))
        await whole(transport, upstream)
        open_one = await ask(transport, upstream)
        finished = await ask(transport, upstream)
        finished.finish()
        await transport.close()
        for connection in upstream.connections:
            await connection.peer_closed.wait()
        assert upstream.open_connections == 0
        open_one.close()
        finished.close()


# --- early ends, and what is left in the pool


async def test_close_in_mid_body_is_immediate(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(sse(["1", hang]))
        response = await ask(transport, upstream)
        assert await response.read() == b"data: 1\n\n"
        response.close()
        await upstream.disconnected()
        assert upstream.open_connections == 0
        response.close()


async def test_a_finished_answer_keeps_its_connection(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        gate = Gate(1)
        upstream.queue(sse(["[DONE]", b""], gate=gate), answer_bytes(200, b"x"))
        response = await ask(transport, upstream)
        assert await response.read() == b"data: [DONE]\n\n"
        response.finish()
        response.close()
        wire = upstream_wires(transport)[0]
        gate.open()
        while wire.stage is not Stage.IDLE:
            await asyncio.sleep(0)
        assert await whole(transport, upstream) == b"x"
        assert len(upstream.connections) == 1


async def test_a_finished_answer_that_does_not_end_is_dropped(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transport.client.LINGER", 0.02)
    async with ScriptedUpstream() as upstream:
        upstream.queue(sse(["[DONE]", hang]))
        response = await ask(transport, upstream)
        assert await response.read() == b"data: [DONE]\n\n"
        response.finish()
        response.close()
        await upstream.disconnected()


async def test_not_reading_pauses_the_peer(transport: Transport) -> None:
    block = b"x" * 65536
    blocked = asyncio.Event()

    async def flood(exchange: Exchange) -> None:
        await exchange.head(200)
        while True:
            writing = asyncio.ensure_future(exchange.chunk(block))
            for _ in range(200):  # turns of the loop, in which a reading peer would read
                if writing.done():
                    break
                await asyncio.sleep(0)
            else:
                blocked.set()
            await writing

    async with ScriptedUpstream(flood, sndbuf=65536) as upstream:
        response = await ask(transport, upstream)
        await blocked.wait()
        exchange = upstream.requests[0]
        held = exchange.written
        assert held < 8 << 20  # kernel buffers, and READ_AHEAD of ours
        got = 0
        while got < 2 * held:
            got += len(await response.read())
        assert exchange.written > held
        response.close()


async def test_unasked_bytes_are_nobodys_answer(transport: Transport) -> None:
    """What a peer sends on an idle connection must not answer the next request."""
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    go = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await answer_bytes(200, b"good")(exchange)
        await exchange.complete()
        await exchange.wait(go)
        await exchange.write(poison)

    async with ScriptedUpstream() as upstream:
        upstream.queue(script, answer_bytes(200, b"fresh"))
        assert await whole(transport, upstream) == b"good"
        go.set()
        await upstream.requests[0].finished.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert await whole(transport, upstream) == b"fresh"
