"""TLS: whose word ends an answer, bodies that nobody can see go out, and stale connections."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import ConnectFailed, UpstreamError
from server.transport import AttemptTimeouts, Transport
from tests.fakes.tls import Tls, make_tls
from tests.transport.asking import answer, ask, raw, rest_of, whole

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nabc"


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> Tls:
    made = make_tls("localhost")
    monkeypatch.setattr("server.transport.pool.tls_context", lambda: made.client)
    return made


async def test_connections_are_reused(transport: Transport, tls: Tls) -> None:
    async with raw(ssl=tls.server) as server:
        for _ in range(3):
            assert await whole(transport, server.url) == b"own"
        # The first may go: tickets for later sessions come unasked.
        assert len(server.peers) <= 2


async def test_until_close_ends_by_the_peers_word(transport: Transport, tls: Tls) -> None:
    async with raw([UNTIL_CLOSE, "turn", "close"], ssl=tls.server) as server:
        assert await whole(transport, server.url) == b"abc"


async def test_until_close_that_somebody_cut_is_truncated(transport: Transport, tls: Tls) -> None:
    """Anybody on the way can close the socket; only the peer can say that it is done."""
    async with raw([UNTIL_CLOSE, "hang"], ssl=tls.server) as server:
        response = await ask(transport, server.url)
        assert await response.read() == b"abc"
        server.peers[0].cut()
        data, error = await rest_of(response)
        assert (data, error.outcome) == (b"", "truncated")


async def test_a_broken_answer(transport: Transport, tls: Tls) -> None:
    async with raw([answer(b"abc")[:-1], "turn", "close"], ssl=tls.server) as server:
        data, error = await rest_of(await ask(transport, server.url))
        assert (data, error.outcome) == (b"ab", "truncated")
        assert await whole(transport, server.url) == b"own"


async def test_what_a_stale_connection_said(transport: Transport, tls: Tls) -> None:
    async with raw(ssl=tls.server) as server:
        assert await whole(transport, server.url) == b"own"
        server.peers[0].say(answer(b"poison"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert await whole(transport, server.url) == b"own"
        await server.peers[0].gone.wait()
        server.peers[-1].cut()
        for _ in range(5):
            await asyncio.sleep(0)
        assert await whole(transport, server.url) == b"own"


async def test_a_no_to_a_large_body_costs_the_connection(transport: Transport, tls: Tls) -> None:
    """Under TLS nobody can see whether the body is out. A small one, or a yes, is another thing."""
    no = answer(b"no").replace(b"200 OK", b"413 Too Large")
    for script, size, kept in (([no], 4, True), ([answer(b"yes")], 200_000, True)):
        async with raw(script, ssl=tls.server) as server:
            await whole(transport, server.url)
            await whole(transport, server.url, b"x" * size)
            pool = next(pool for pool in transport._pools.values() if len(pool))
            assert (len(pool._free) == 1) is kept
    async with raw([no], ssl=tls.server) as server:
        assert await whole(transport, server.url, b"x" * 200_000) == b"no"
        await server.peers[0].gone.wait()
        assert await whole(transport, server.url) == b"own"


async def test_a_slow_reader_that_finds_the_connection_gone(transport: Transport, tls: Tls) -> None:
    body = b"x" * 400_000
    async with raw([answer(body)[:-1], "turn", "close"], ssl=tls.server) as server:
        response = await ask(transport, server.url)
        for _ in range(200):
            await asyncio.sleep(0)
        data, error = await rest_of(response)
        assert (len(data), error.outcome) == (len(body) - 1, "truncated")


async def test_closing_while_the_answer_is_under_way(tls: Tls) -> None:
    transport = Transport()
    async with raw([answer(b"abc")[:-1], "hang"], ssl=tls.server) as server:
        response = await ask(transport, server.url)
        assert await response.read() == b"ab"
        await transport.close()
        with pytest.raises(UpstreamError):
            await response.read()
        response.close()
        await server.peers[0].gone.wait()
        with pytest.raises(ConnectFailed, match="could not be reached"):
            await ask(transport, server.url)


async def test_a_handshake_that_does_not_end(transport: Transport, tls: Tls) -> None:
    async with raw() as server:
        server.first = ["hang"]
        times = AttemptTimeouts(0.05, 5, 5)
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, server.url.replace("http:", "https:"), times=times)
        assert caught.value.outcome == "connect_timeout"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_handshake_that_the_peer_breaks_off(
    transport: Transport, tls: Tls, end: str
) -> None:
    async with raw() as server:
        server.first = ["turn", "close" if end == "close" else "reset"]
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, server.url.replace("http:", "https:"))
        assert (caught.value.outcome, caught.value.sent) == ("tls", False)
