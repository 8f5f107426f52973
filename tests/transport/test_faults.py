"""Everything that goes wrong before an answer's head, and in its body."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from server.errors import ConnectFailed, UpstreamError, UpstreamTimeout
from server.transport import AttemptTimeouts, Endpoint, Transport
from tests.fakes.faults import (
    bad_chunk_size,
    close,
    close_before_head,
    close_in_head,
    close_on_accept,
    closed_port,
    closed_socket,
    cut_chunk,
    garbage,
    hang,
    hang_before_head,
    hang_in_head,
    hang_on_accept,
    huge_headers,
    never_read,
    no_answer_port,
    reset,
    reset_before_head,
    reset_in_head,
    reset_on_accept,
    short_body,
)
from tests.fakes.tls import make_tls
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    Step,
    answer_bytes,
    sse,
)
from tests.transport.asking import TIMES, ask, rest_of, upstream_wires

# --- TLS and addresses


async def test_unknown_authorities_are_refused(transport: Transport) -> None:
    async with ScriptedUpstream(ssl=make_tls().server) as upstream:
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, upstream)
        assert (caught.value.outcome, caught.value.sent) == ("tls", False)
        assert upstream.requests == []


async def test_known_authorities_are_trusted(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = make_tls("localhost")
    monkeypatch.setattr("server.transport.pool.tls_context", lambda: tls.client)
    async with ScriptedUpstream(answer_bytes(200, b"x"), ssl=tls.server) as upstream:
        url = f"https://localhost:{upstream.port}"
        response = await ask(transport, url)
        assert await response.read_all(10) == b"x"
        response.close()
        with pytest.raises(ConnectFailed) as caught:  # the certificate has another name
            await ask(transport, upstream.url)
        assert caught.value.outcome == "tls"


async def test_tls_spoken_to_a_plain_port(transport: Transport) -> None:
    async with ScriptedUpstream(answer_bytes(200, b"x")) as upstream:
        upstream.queue(garbage())
        task = asyncio.create_task(ask(transport, upstream.url.replace("http", "https")))
        await upstream.accepted.at_least(1)
        await upstream.stop()
        with pytest.raises(ConnectFailed) as caught:
            await task
        assert caught.value.outcome in ("tls", "refused")


async def test_refused(transport: Transport, tmp_path: Path) -> None:
    with closed_port() as port:
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, f"http://127.0.0.1:{port}")
        assert (caught.value.outcome, caught.value.sent) == ("refused", False)
    with closed_socket(tmp_path / "stale") as path:
        for uds in (path, str(tmp_path / "missing")):
            with pytest.raises(ConnectFailed) as caught:
                await transport.send(
                    Endpoint("http://engine", uds),
                    "POST",
                    "/",
                    headers={},
                    body=b"",
                    timeouts=TIMES,
                )
            assert caught.value.outcome == "refused"


async def test_dns(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectFailed) as caught:
        await ask(transport, "http://no-such-host.localhost:9")
    assert (caught.value.outcome, caught.value.sent) == ("dns", False)


async def test_connect_timeout(transport: Transport) -> None:
    with no_answer_port() as port:
        times = AttemptTimeouts(0.05, 5, 5)
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, f"http://127.0.0.1:{port}", times=times)
        assert (caught.value.outcome, caught.value.sent) == ("connect_timeout", False)


# --- before the head


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        (reset_on_accept(), {"reset"}),
        (close_on_accept(), {"reset"}),
        (reset_before_head(), {"reset"}),
        (close_before_head(), {"reset"}),
        (reset_in_head(), {"reset"}),
        (close_in_head(), {"reset"}),
        (garbage(), {"protocol"}),
        (garbage(b"\x00" * 100), {"protocol"}),
        (garbage(b"HTTP/1.1 abc\r\n\r\n"), {"protocol"}),
        (garbage(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), {"protocol"}),
        (huge_headers(1 << 20), {"protocol"}),
        (huge_headers(each=16384), {"protocol"}),
    ],
)
async def test_no_head(transport: Transport, fault: Any, outcomes: set[str]) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(fault, fault)
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, upstream)
        assert caught.value.outcome in outcomes
        assert caught.value.sent
        assert len(upstream.requests) <= 1  # what was sent once is never sent again


async def test_a_peer_that_speaks_first(transport: Transport) -> None:
    async def speak(exchange: Exchange) -> None:
        await exchange.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        await exchange.hang()

    async with ScriptedUpstream() as upstream:
        upstream.queue(Step(speak, at="accept"))
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, upstream)
        assert caught.value.outcome in ("protocol", "reset")
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("fault", [hang_before_head(), hang_in_head(), hang_on_accept()])
async def test_first_byte_timeout(transport: Transport, fault: Any) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(fault)
        with pytest.raises(UpstreamTimeout) as caught:
            await ask(transport, upstream, times=AttemptTimeouts(5, 0.05, 5))
        assert caught.value.outcome == "first_byte_timeout"
        await upstream.connections[0].peer_closed.wait()


async def test_a_peer_that_does_not_read(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(never_read())
        with pytest.raises(UpstreamTimeout):
            await ask(transport, upstream, b"x" * (16 << 20), times=AttemptTimeouts(5, 0.1, 5))


async def test_cancelling_closes_the_connection(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(hang)
        task = asyncio.create_task(ask(transport, upstream))
        await upstream.next_request()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.disconnected()
        assert upstream.open_connections == 0


async def test_a_bad_address_is_told_as_an_upstream_error(transport: Transport) -> None:
    for url in ("http://", "ftp://localhost/x", "http://localhost:99999"):
        with pytest.raises(UpstreamError):
            await ask(transport, url)


# --- in the body


@pytest.mark.parametrize("action", [close, reset, cut_chunk, bad_chunk_size])
async def test_broken_bodies(transport: Transport, action: Any) -> None:
    async with ScriptedUpstream() as upstream:
        gate = Gate()
        upstream.queue(sse(["1", action], gate=gate))
        gate.release()
        response = await ask(transport, upstream)
        assert await response.read() == b"data: 1\n\n"
        gate.open()
        data, error = await rest_of(response)
        assert error.outcome in ("truncated", "protocol")
        assert data == b"" or action is cut_chunk


@pytest.mark.parametrize("action", [close, reset, cut_chunk, bad_chunk_size])
async def test_what_came_before_the_break_is_handed_out(transport: Transport, action: Any) -> None:
    async with ScriptedUpstream() as upstream:
        gate = Gate()
        upstream.queue(sse(["1", "2", action], gate=gate))
        gate.release()
        response = await ask(transport, upstream)
        gate.open()
        await upstream.connections[0].lost.wait()
        while upstream_wires(transport):
            await asyncio.sleep(0)
        data, error = await rest_of(response)
        assert data.startswith(b"data: 1\n\ndata: 2\n\n")
        assert error.outcome in ("truncated", "protocol")


async def test_a_short_body(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.queue(short_body(b"abc"))
        data, error = await rest_of(await ask(transport, upstream))
        assert (data, error.outcome) == (b"abc", "truncated")
