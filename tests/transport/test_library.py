"""Upstreams behind a proxy: what the proxy sees, and what it breaks."""

from __future__ import annotations

import asyncio
import base64
import time
import traceback

import pytest

from server.errors import ConnectFailed, UpstreamError, UpstreamTimeout
from server.transport import AttemptTimeouts, Endpoint, Response, Transport
from tests.fakes.faults import bad_chunk_size, closed_port, hang, no_answer_port, reset
from tests.fakes.tls import Tls, make_tls
from tests.fakes.upstream import ScriptedUpstream, answer_bytes, finish_connection, sse
from tests.transport.asking import TIMES, rest_of
from tests.transport.proxies import Proxy, proxy

SECRET = "hush-hush"
LOGIN = base64.b64encode(f"user:{SECRET}".encode()).decode()


async def through(
    transport: Transport,
    proxy: Proxy | str,
    base_url: str,
    *,
    times: AttemptTimeouts = TIMES,
    deadline: float | None = None,
) -> Response:
    url = proxy if isinstance(proxy, str) else proxy.url
    return await transport.send(
        Endpoint(base_url, proxy=url.replace("//", f"//user:{SECRET}@")),
        "POST",
        "/v1/x",
        headers={"content-type": "application/json"},
        body=b'{"a":1}',
        timeouts=times,
        deadline=deadline,
    )


async def refused(transport: Transport, proxy: Proxy | str, base_url: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await through(transport, proxy, base_url, times=AttemptTimeouts(0.3, 2, 2))
    error = caught.value
    assert error.__cause__ is None  # what a log would print in full
    said = "".join(traceback.format_exception(error)) + f"{error!r} {error.detail}"
    assert SECRET not in said
    assert LOGIN not in said
    return error


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> Tls:
    made = make_tls("localhost")
    monkeypatch.setattr("server.transport.library.tls_context", lambda: made.client)
    return made


def secure(upstream: ScriptedUpstream) -> str:
    return f"https://localhost:{upstream.port}"


# --- what works


async def test_http_goes_through_in_absolute_form(transport: Transport) -> None:
    async with ScriptedUpstream(answer_bytes(200, b"hello")) as upstream, proxy() as by:
        response = await through(transport, by, upstream.url)
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        assert await response.read_all(10) == b"hello"
        assert await response.read() == b""
        response.close()
        line, *headers = by.heads[0].decode().lower().split("\r\n")
        assert line == f"post {upstream.url}/v1/x http/1.1"
        assert f"proxy-authorization: basic {LOGIN.lower()}" in headers
        assert upstream.requests[0].body == b'{"a":1}'
        assert upstream.requests[0].header("accept-encoding") == "identity"


async def test_https_goes_through_in_a_tunnel(transport: Transport, tls: Tls) -> None:
    async with (
        ScriptedUpstream(answer_bytes(200, b"hello"), ssl=tls.server) as upstream,
        proxy() as by,
    ):
        for _ in range(2):
            response = await through(transport, by, secure(upstream))
            assert await response.read_all(10) == b"hello"
            response.close()
        (head,) = by.heads  # one tunnel for both
        assert head.startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % upstream.port)
        assert b"proxy-authorization: basic " + LOGIN.lower().encode() in head.lower()
        assert upstream.requests[0].header("proxy-authorization") is None


async def test_a_certificate_is_judged_behind_a_proxy_too(transport: Transport) -> None:
    async with ScriptedUpstream(ssl=make_tls().server) as upstream, proxy() as by:
        error = await refused(transport, by, upstream.url)
        assert (error.outcome, error.sent) == ("tls", False)
        assert upstream.requests == []


async def test_streams(transport: Transport) -> None:
    async with ScriptedUpstream(sse(["1", "2"])) as upstream, proxy() as by:
        response = await through(transport, by, upstream.url)
        got: list[bytes] = []

        def take(data: bytes) -> bool:
            got.append(data)
            return True

        response.expect(time.monotonic() + 5, 5)
        await response.stream(take)
        assert b"".join(got) == b"data: 1\n\ndata: 2\n\n"
        assert got[-1] == b""
        assert response.complete() is None
        response.finish()
        response.close()


async def test_finish_keeps_or_drops(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.transport.library.LINGER", 0.02)
    async with ScriptedUpstream() as upstream, proxy() as by:
        upstream.queue(sse(["1", hang]))
        response = await through(transport, by, upstream.url)
        assert await response.read() == b"data: 1\n\n"
        response.finish()
        response.close()
        await upstream.disconnected()


async def test_close_ends_it_at_once(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream, proxy() as by:
        upstream.queue(sse(["1", hang]), sse(["2", hang]), sse(["3", hang]))
        response = await through(transport, by, upstream.url)
        response.close()
        await upstream.disconnected()
        finished = await through(transport, by, upstream.url)
        finished.finish()
        still = await through(transport, by, upstream.url)
        assert await still.read() == b"data: 3\n\n"
        await transport.close()
        with pytest.raises(UpstreamError):
            await still.read()
        still.close()
        with pytest.raises(ConnectFailed, match="could not be reached"):
            await through(transport, by, upstream.url)


async def test_a_closed_client_loads_no_library() -> None:
    transport = Transport()
    await transport.close()
    with pytest.raises(ConnectFailed):
        await through(transport, "http://127.0.0.1:9", "http://127.0.0.1:9")


async def test_a_stale_connection_is_not_used(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream, proxy() as by:
        upstream.queue(finish_connection(answer_bytes(200, b"1")), answer_bytes(200, b"2"))
        for body in (b"1", b"2"):
            response = await through(transport, by, upstream.url)
            assert await response.read_all(9) == body
            response.close()
            await asyncio.sleep(0.01)


async def test_a_connection_that_spoke_unasked_is_not_used(transport: Transport) -> None:
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    async with ScriptedUpstream(answer_bytes(200, b"good")) as upstream, proxy() as by:
        response = await through(transport, by, upstream.url)
        assert await response.read_all(9) == b"good"
        response.close()
        await upstream.connections[0].write(poison)
        await asyncio.sleep(0.02)
        response = await through(transport, by, upstream.url)
        assert await response.read_all(9) == b"good"
        response.close()


# --- what the proxy breaks


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_a_tunnel(transport: Transport, tls: Tls, status: int) -> None:
    async with proxy(refuse=status) as by:
        error = await refused(transport, by, "https://localhost:9")
        assert (error.outcome, error.sent) == ("refused", False)
        assert str(status) in str(error.detail)


async def test_a_proxy_that_wants_a_login(transport: Transport) -> None:
    """407 speaks of our account at the proxy: it is no answer of the model's, nor the client's."""
    async with proxy(refuse=407) as by:
        error = await refused(transport, by, "http://localhost:9")
        assert (error.outcome, error.sent, error.status) == ("refused", False, 502)


async def test_what_else_a_proxy_answers_is_an_answer(transport: Transport) -> None:
    """For http nothing tells a proxy's 403 from the upstream's."""
    async with proxy(refuse=403) as by:
        response = await through(transport, by, "http://localhost:9")
        assert response.status == 403
        response.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_down(transport: Transport, tls: Tls, scheme: str) -> None:
    with closed_port() as port:
        error = await refused(transport, f"http://127.0.0.1:{port}", f"{scheme}://localhost:9")
        assert (error.outcome, error.sent) == ("refused", False)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_does_not_answer(transport: Transport, tls: Tls, scheme: str) -> None:
    with no_answer_port() as port:
        error = await refused(transport, f"http://127.0.0.1:{port}", f"{scheme}://localhost:9")
        assert (error.outcome, error.sent) == ("connect_timeout", False)


@pytest.mark.parametrize("cut", [0, 1, 100, 400])
async def test_a_tunnel_cut_in_the_handshake(transport: Transport, tls: Tls, cut: int) -> None:
    async with ScriptedUpstream(ssl=tls.server) as upstream, proxy(cut=cut) as by:
        error = await refused(transport, by, secure(upstream))
        assert error.outcome in ("tls", "refused")
        assert not error.sent
        assert upstream.requests == []


async def test_a_tunnel_cut_in_the_answer(transport: Transport, tls: Tls) -> None:
    body = b"x" * 200_000
    async with (
        ScriptedUpstream(answer_bytes(200, body), ssl=tls.server) as upstream,
        proxy(cut=100_000) as by,
    ):
        data, error = await rest_of(await through(transport, by, secure(upstream)))
        assert error.outcome == "truncated"
        assert body.startswith(data)


@pytest.mark.parametrize(("cut", "outcome"), [(0, "reset"), (20, "reset")])
async def test_cut_in_the_head(transport: Transport, cut: int, outcome: str) -> None:
    async with ScriptedUpstream(answer_bytes(200, b"x" * 99)) as upstream, proxy(cut=cut) as by:
        error = await refused(transport, by, upstream.url)
        assert (error.outcome, error.sent) == (outcome, True)
        assert len(upstream.requests) == 1  # nothing is sent twice


@pytest.mark.parametrize("fault", [reset, bad_chunk_size])
async def test_broken_bodies(transport: Transport, fault: object) -> None:
    async with ScriptedUpstream(sse(["1", fault])) as upstream, proxy() as by:  # type: ignore[list-item]
        try:
            data, error = await rest_of(await through(transport, by, upstream.url))
        except UpstreamError as at_once:  # aiohttp read all of it with the head
            data, error = b"", at_once
        assert error.outcome in ("truncated", "protocol")
        assert data.startswith(b"data: 1\n\n") or not data


async def test_garbage_is_no_answer(transport: Transport) -> None:
    async def garbage(exchange: object) -> None:
        await exchange.write(b"SSH-2.0-x\r\n\r\n")  # type: ignore[attr-defined]

    async with ScriptedUpstream(garbage) as upstream, proxy() as by:
        assert (await refused(transport, by, upstream.url)).outcome == "protocol"


async def test_addresses_that_are_none(transport: Transport) -> None:
    for url in ("http://", "http://localhost:99999"):
        error = await refused(transport, "http://127.0.0.1:9", url)
        assert error.outcome in ("protocol", "refused")


# --- time


async def test_time_outs(transport: Transport) -> None:
    async with ScriptedUpstream() as upstream, proxy() as by:
        upstream.queue(hang, hang, sse(["1", hang]))
        for deadline, outcome in ((None, "first_byte_timeout"), (0.05, "deadline")):
            with pytest.raises(UpstreamTimeout) as caught:
                await through(
                    transport,
                    by,
                    upstream.url,
                    times=AttemptTimeouts(5, 5 if deadline else 0.05, 5),
                    deadline=deadline and time.monotonic() + deadline,
                )
            assert caught.value.outcome == outcome
        response = await through(transport, by, upstream.url)
        response.expect(time.monotonic() + 5, 0.05)
        assert await response.read() == b"data: 1\n\n"
        with pytest.raises(UpstreamTimeout) as caught:
            await response.read()
        assert caught.value.outcome == "stall"
        response.close()


async def test_cancelling_closes_the_connection(transport: Transport) -> None:
    async with ScriptedUpstream(hang) as upstream, proxy() as by:
        task = asyncio.ensure_future(through(transport, by, upstream.url))
        await upstream.next_request()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.disconnected()
