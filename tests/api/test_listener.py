"""The listener's own limits: heads that are slow, large or no HTTP, and too many connections."""

from __future__ import annotations

import socket

import httpx
import pytest

from server.api.listener import bind
from server.errors import BindError
from server.serving import Roundhouse
from tests.api.conftest import Serve, config_of, port_of
from tests.fakes.client import RawClient
from tests.fakes.upstream import ScriptedUpstream


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
