"""The listener's own limits: heads that are slow, large or no HTTP, and too many connections."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest

from server.api.listener import bind
from server.errors import BindError
from server.serving import Roundhouse
from tests.api.conftest import ASK, KEY, Serve, config_of, port_of
from tests.fakes.client import RawClient
from tests.fakes.http1 import PeerGone
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_answer, chat_stream


async def ask_raw(server: Roundhouse, data: bytes) -> tuple[int, bytes]:
    async with RawClient(port=port_of(server)) as client:
        await client.send(data)
        head = await client.read_head()
        return head.status, await client.read_body()


async def test_slow_head(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"timeouts": {"header": "100ms"}}))
    status, body = await ask_raw(server, b"POST /v1/chat/comp")
    assert status == 408
    assert b'"request_timeout"' in body
    # An idle connection on which nothing has begun is closed by the same clock.
    status, _ = await ask_raw(server, b"")
    assert status == 408


async def test_large_head(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"limits": {"headers": "4KiB"}}))
    lines = b"".join(b"x-%d: %s\r\n" % (n, b"a" * 100) for n in range(60))
    status, body = await ask_raw(server, b"GET /health HTTP/1.1\r\n" + lines + b"\r\n")
    assert (status, b'"headers_too_large"' in body) == (413, True)
    status, _ = await ask_raw(server, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == 413
    status, _ = await ask_raw(server, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == 200


async def test_no_http(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream))
    status, body = await ask_raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert (status, b'"invalid_http"' in body) == (400, True)


async def test_too_many_connections(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"limits": {"connections": 2}}))
    async with RawClient(port=port_of(server)) as one, RawClient(port=port_of(server)) as two:
        for client in (one, two):
            await client.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.read_head()).status == 200
        async with RawClient(port=port_of(server)) as three:
            head = await three.read_head()
            assert (head.status, head.header("retry-after")) == (503, "1")
    assert (
        server.metrics.registry.get_sample_value("roundhouse_shed_total", {"reason": "connections"})
        == 1
    )


async def test_keep_alive_and_pipelining(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream))
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    async with RawClient(port=port_of(server)) as client:
        await client.send(request * 3)
        for _ in range(3):
            assert (await client.read_head()).status == 200
            assert await client.read_body() == b'{"status":"ok"}'


HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n"
EARLY = b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "more"),
    [(HEALTH + b"\r\n", b"\r\n"), (EARLY, b"5\r\nhel")],
    ids=["an empty line", "a body that was not waited for"],
)
async def test_idle_is_idle_whatever_dribbles_in(
    serve: Serve, upstream: ScriptedUpstream, request_: bytes, more: bytes
) -> None:
    server = await serve(config_of(upstream, server={"timeouts": {"keep_alive": "1s"}}))
    async with RawClient(port=port_of(server)) as client:
        await client.send(request_)
        await client.read_head()
        await client.read_body()
        await client.send(more)
        await asyncio.wait_for(client.closed(), 4)


@pytest.mark.parametrize("times", [1, 5])
async def test_an_answer_that_nobody_reads(
    serve: Serve, upstream: ScriptedUpstream, times: int
) -> None:
    """Its connection ends, whether it is idle or holds up the next answers."""
    settings = {"timeouts": {"keep_alive": "1s", "write": "200ms"}}
    server = await serve(config_of(upstream, server=settings))
    upstream.default = chat_answer("x" * 8_000_000)
    async with RawClient(port=port_of(server), rcvbuf=4096) as client:
        client.pause()
        await client.send(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n" * times)
        if times == 1:
            await client.post("/v1/chat/completions", ASK)
        connections = server._listeners[0]._server.server_state.connections
        async with asyncio.timeout(4):
            while not connections:
                await asyncio.sleep(0)
            while connections:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("junk", [b"\x00junk\r\n", b"GET /x"], ids=["no HTTP", "half a head"])
async def test_nothing_is_written_into_a_stream(
    serve: Serve, upstream: ScriptedUpstream, junk: bytes
) -> None:
    server = await serve(config_of(upstream, server={"timeouts": {"header": "100ms"}}))
    gate = Gate(2)
    upstream.queue(chat_stream(["a", "b"], gate=gate))
    async with RawClient(port=port_of(server)) as client:
        await client.post("/v1/chat/completions", {**ASK, "stream": True})
        await client.read_head()
        await client.read_event()
        await client.send(junk)
        asyncio.get_running_loop().call_later(0.4, gate.open)
        try:
            rest = await client.read_body()
        except PeerGone:
            rest = b"cut"
    assert rest == b"cut" if junk.startswith(b"\x00") else rest.endswith(b"[DONE]\n\n")


async def test_a_client_that_leaves_with_a_request_in_its_queue(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """It is the running one that has to hear of it."""
    server = await serve(config_of(upstream))
    upstream.queue(chat_stream(["a", "b"], gate=Gate(2)))
    async with RawClient(port=port_of(server)) as client:
        for _ in range(2):
            await client.post("/v1/chat/completions", {**ASK, "stream": True})
        await client.read_head()
        await client.read_event()
        client.abort()
        await asyncio.wait_for(upstream.disconnected(), 2)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_wish_for_another_protocol_loses_nothing(
    serve: Serve, upstream: ScriptedUpstream, framing: str
) -> None:
    """Java's client wants HTTP/2 with every request, and sends the body all the same."""
    server = await serve(config_of(upstream))
    upstream.default = chat_answer()
    wish = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"
    body = json.dumps(ASK).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    if framing == "length":
        message = head + wish + b"content-length: %d\r\n\r\n" % len(body) + body
    else:
        message = head + wish + b"transfer-encoding: chunked\r\n\r\n"
        message += b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with RawClient(port=port_of(server)) as client:
        await client.send(message + HEALTH + wish + b"\r\n")
        await client.send(message[:200])
        await client.send(message[200:])
        for expected in (b'"chat.completion"', b'{"status":"ok"}', b'"chat.completion"'):
            assert (await client.read_head()).status == 200
            assert expected in await client.read_body()
    status, _ = await ask_raw(server, b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == 400


async def test_a_trailer_is_no_header(server: Roundhouse) -> None:
    body = json.dumps(ASK).encode()
    message = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    message += b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    status, _ = await ask_raw(server, message + f"authorization: Bearer {KEY}\r\n\r\n".encode())
    assert status == 401


def test_port_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"port {port} on 127.0.0.1 is taken") as found:
            bind("127.0.0.1", port)
    assert "another port" in found.value.message


def test_addresses_that_cannot_be() -> None:
    with pytest.raises(BindError, match="no address of this machine"):
        bind("192.0.2.1", 0)
    with bind("::1", 0) as sock:
        assert sock.family is socket.AF_INET6


async def test_url_of_a_wildcard_bind(serve: Serve, upstream: ScriptedUpstream) -> None:
    keys = [{"name": "k", "key": "sk-test-0123456789abcdef0123456789abcdef"}]
    server = await serve(config_of(upstream, server={"host": "0.0.0.0", "keys": keys}))
    assert server.url.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.get("/health")).status_code == 200
