"""Pools: what connecting may raise, how long connections are kept, and what a peer teaches."""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.errors import ConnectFailed, UpstreamError, UpstreamProtocol
from server.transport import Transport
from server.transport import pool as pool_module
from server.transport.head import Address
from server.transport.pool import IDLE, Pool, tls_context
from server.transport.wire import Wire
from tests.transport.asking import OUTCOMES, Act, answer, ask, raw, upstream_wires, whole

PLACE = Address("127.0.0.1", 9, False)


class Failing(Pool):
    """Its connecting raises this."""

    def __init__(self, error: BaseException, *, tls: bool) -> None:
        super().__init__(Address("127.0.0.1", 9, tls))
        self._error = error

    async def _open(self, place: Address) -> Wire:
        raise self._error


async def outcome_of(error: BaseException, *, tls: bool = False) -> str:
    with pytest.raises(UpstreamError) as caught:
        await Failing(error, tls=tls).connect(1)
    assert caught.value.detail
    assert str(error) not in caught.value.message or not str(error)
    assert isinstance(caught.value, ConnectFailed) is not caught.value.sent
    return caught.value.outcome


# --- connecting


def kinds(top: type[BaseException]) -> Iterator[type[BaseException]]:
    """The class and its built-in subclasses."""
    for kind in {top, *top.__subclasses__()}:
        if kind.__module__ in ("builtins", "ssl", "socket"):
            yield kind
            if kind is not top:
                yield from kinds(kind)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("code", sorted({*errno.errorcode} - {errno.EMFILE, errno.ENFILE}))
async def test_every_number_of_the_system_has_an_outcome(code: int, tls: bool) -> None:
    error = OSError(code, os.strerror(code))
    outcome = await outcome_of(error, tls=tls)
    expected = {"refused"}
    if isinstance(error, TimeoutError):
        expected = {"connect_timeout"}
    elif tls and isinstance(error, ConnectionError) and code != errno.ECONNREFUSED:
        expected = {"tls"}
    assert outcome in expected


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", sorted({*kinds(OSError), *kinds(EOFError)}, key=repr))
async def test_every_kind_of_error_has_an_outcome(kind: type[BaseException], tls: bool) -> None:
    assert await outcome_of(kind(), tls=tls) in ConnectFailed.OUTCOMES
    assert await outcome_of(kind(1, "secret"), tls=tls) in ConnectFailed.OUTCOMES


@pytest.mark.parametrize(
    "code", [getattr(socket, name) for name in dir(socket) if name.startswith("EAI_")]
)
async def test_every_answer_of_a_name_server_is_dns(code: int) -> None:
    assert await outcome_of(socket.gaierror(code, "x")) == "dns"


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLError(1, "x"),
        ssl.SSLCertVerificationError(1, "x"),
        ssl.SSLEOFError(8, "x"),
        ssl.SSLZeroReturnError(6, "x"),
        ssl.CertificateError("x"),
        ConnectionResetError(),
        ConnectionAbortedError("SSL handshake is taking longer than 60.0 seconds"),
        BrokenPipeError(),
        EOFError(),
    ],
)
async def test_what_breaks_a_handshake_is_tls(error: BaseException) -> None:
    assert await outcome_of(error, tls=True) == "tls"


@pytest.mark.parametrize("error", [ValueError("x"), OverflowError("x"), UnicodeError("x")])
async def test_an_address_that_is_none_is_the_operators(error: Exception) -> None:
    assert await outcome_of(error) == "protocol"


def test_nothing_built_in_was_forgotten() -> None:
    every = {
        kind
        for kind in vars(builtins).values()
        if isinstance(kind, type) and issubclass(kind, OSError)
    }
    assert every <= set(kinds(OSError))


async def test_a_fault_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(KeyError):
        await Failing(KeyError("x"), tls=False).connect(1)


async def test_lost_as_soon_as_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was never written to, so another try is safe."""
    async with raw() as server:
        place = Address("127.0.0.1", server.port, False)
        real = Pool._open

        async def and_lost(self: Pool, place: Address) -> Wire:
            wire = await real(self, place)
            if how == "lost":
                wire.abort()
                await asyncio.sleep(0.01)
            elif how == "closing":
                wire.abort()
            else:
                self.close()
            return wire

        monkeypatch.setattr(Pool, "_open", and_lost)
        for how in ("lost", "closing", "closed"):  # noqa: B007 - `and_lost` reads it
            pool = Pool(place)
            with pytest.raises(ConnectFailed) as caught:
                await pool.connect(1)
            assert (caught.value.outcome, len(pool)) == ("refused", 0)


# --- keeping


async def test_the_newest_is_taken_first_and_the_rest_ages(transport: Transport) -> None:
    async with raw() as server:
        await asyncio.gather(*(whole(transport, server.url) for _ in range(3)))
        (pool,) = transport._pools.values()
        assert len(pool) == len(pool._free) == 3
        newest = pool._free[-1]
        assert pool.take() is newest
        newest.abort()


async def test_idle_connections_are_retired(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "IDLE", 0.05)
    async with raw() as server:
        await asyncio.gather(whole(transport, server.url), whole(transport, server.url))
        await asyncio.gather(*(peer.gone.wait() for peer in server.peers))
        (pool,) = transport._pools.values()
        await asyncio.sleep(0)
        assert (len(pool._free), pool._sweep) == (0, None)
        assert await whole(transport, server.url) == b"own"


async def test_retiring_is_not_put_off_by_traffic(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer says `keep-alive`; one connection stays busy while the other grows old."""
    said: list[Act] = [answer(b"own", b"keep-alive: timeout=1")]
    async with raw(default=said) as server:
        await asyncio.gather(whole(transport, server.url), whole(transport, server.url))
        (pool,) = transport._pools.values()
        assert pool._keep == 0.5
        pool._keep = 0.1
        old = pool._free[0]
        began = time.monotonic()
        while old.transport is not None and not old.transport.is_closing():
            assert await whole(transport, server.url) == b"own"
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 20
        assert len(server.peers) == 2


@pytest.mark.parametrize(
    ("said", "keep"),
    [
        ("timeout=5", 4.0),
        ("Timeout=5, max=100", 4.0),
        ("max=100, timeout=20", 19.0),
        ("timeout=1", 0.5),
        ("timeout=0", 0.0),
        ("timeout=300", IDLE),
        ("timeout=", IDLE),
        ("timeout=-5", IDLE),
        ("timeout=5s", IDLE),
        ("timeout=\xb2", IDLE),
        ("timeout=" + "9" * 5000, IDLE),
        ("max=5", IDLE),
        ("", IDLE),
    ],
)
async def test_what_a_peer_says_of_its_patience(
    transport: Transport, said: str, keep: float
) -> None:
    data = answer(b"own", b"keep-alive: " + said.encode("latin-1"))
    async with raw(default=[data]) as server:
        assert await whole(transport, server.url) == b"own"
        (pool,) = transport._pools.values()
        assert pool._keep == keep


def _idle_for(wire: Wire, seconds: float) -> None:
    wire.idle_since = time.monotonic() - seconds


async def test_what_a_peer_shows_of_its_patience(transport: Transport) -> None:
    async with raw() as server:
        for idle, keep in ((1, IDLE), (40, IDLE), (10, 8.0), (20, 8.0), (5, 4.0)):
            await whole(transport, server.url)
            (pool,) = transport._pools.values()
            (wire,) = upstream_wires(transport)
            _idle_for(wire, idle)
            server.peers[-1].cut()
            while len(pool):
                await asyncio.sleep(0)
            assert pool._keep == pytest.approx(keep, abs=0.1)


async def test_what_was_learned_is_forgotten(transport: Transport) -> None:
    """A restart of the peer looks like impatience."""
    async with raw() as server:
        await whole(transport, server.url)
        (pool,) = transport._pools.values()
        pool._shorten(2.0)
        await asyncio.sleep(0)
        assert pool._keep == 2.0
        pool._learned = time.monotonic() - pool_module._REMEMBER - 1
        _idle_for(pool._free[0], 10)
        pool._retire()
        assert (pool._keep, len(pool._free)) == (IDLE, 1)


async def test_what_is_learned_holds_for_those_that_are_idle_already(
    transport: Transport,
) -> None:
    async with raw() as server:
        await asyncio.gather(whole(transport, server.url), whole(transport, server.url))
        (pool,) = transport._pools.values()
        _idle_for(pool._free[0], 10)
        pool._shorten(5.0)
        pool._shorten(9.0)
        assert pool._keep == 5.0
        await server.peers[0].gone.wait()
        assert len(pool._free) == 1


async def test_a_restart_of_the_peer(transport: Transport) -> None:
    async with raw() as server:
        await asyncio.gather(*(whole(transport, server.url) for _ in range(5)))
        for peer in server.peers:
            peer.reset()
        for peer in server.peers:
            await peer.gone.wait()
        for _ in range(5):
            assert await whole(transport, server.url) == b"own"


# --- many, and none


async def test_addresses_without_connections_are_forgotten(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transport.client._POOLS", 4)
    async with raw() as server:
        await whole(transport, server.url)
        busy = next(iter(transport._pools))
        for port in range(20):
            with pytest.raises(UpstreamError):
                await ask(transport, f"http://127.0.0.1:0{port % 3}", path=f"/{port}")
            transport._pool(Address("127.0.0.1", 10 + port, False))
            assert len(transport._pools) <= 4
        assert busy in transport._pools
        opening = transport._pool(Address("127.0.0.1", 99, False))
        opening._opening = 1
        for port in range(20):
            transport._pool(Address("127.0.0.1", 100 + port, False))
        assert opening.address in transport._pools


async def test_a_closed_client_opens_nothing() -> None:
    transport = Transport()
    await transport.close()
    await transport.close()
    with pytest.raises(ConnectFailed) as caught:
        await ask(transport, "http://127.0.0.1:9")
    assert (caught.value.outcome, caught.value.sent) == ("refused", False)


async def test_an_answer_that_ends_when_its_pool_is_closed(transport: Transport) -> None:
    async with raw() as server:
        response = await ask(transport, server.url)
        (pool,) = transport._pools.values()
        (wire,) = upstream_wires(transport)
        pool.closed = True
        assert await response.read_all(9) == b"own"
        assert wire.transport.is_closing()


def test_outcomes_are_the_ones_that_are_known() -> None:
    assert ConnectFailed.OUTCOMES <= OUTCOMES
    assert UpstreamProtocol.outcome in OUTCOMES


def test_tls_is_never_lowered() -> None:
    context: Any = tls_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert tls_context() is context
