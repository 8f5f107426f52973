"""Real sockets in awkward states: early answers, half-closed peers, cancellation, leaks."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from pathlib import Path

import pytest

from server.errors import UpstreamError, UpstreamTimeout
from server.transport import AttemptTimeouts, Endpoint, Transport
from tests.fakes.upstream import (
    Exchange,
    ScriptedUpstream,
    Step,
    answer_bytes,
    before_body,
    hang,
    sse,
)
from tests.transport.asking import answer, ask, raw, rest_of, upstream_wires, whole

LARGE = b"x" * (16 << 20)


# --- answers before the body is out


@pytest.mark.parametrize("size", [2, 1 << 20, 16 << 20])
async def test_an_early_answer_is_never_hidden_by_the_end_behind_it(
    transport: Transport, size: int
) -> None:
    """The peer answers on the head and closes on megabytes unread, so it resets."""
    async with ScriptedUpstream() as upstream:
        for _ in range(10):
            upstream.queue(before_body(answer_bytes(413, b"too large")))
            response = await ask(transport, upstream, LARGE[:size])
            assert response.status == 413
            assert await response.read_all(100) == b"too large"
            response.close()
        upstream.queue(answer_bytes(200, b"good"))
        assert await whole(transport, upstream) == b"good"


async def test_an_early_answer_that_keeps_the_connection_open(transport: Transport) -> None:
    """The next request must not queue up behind a body that nobody reads."""

    async def early(exchange: Exchange) -> None:
        exchange.connection.pause_reading()
        await answer_bytes(429, b"later")(exchange)
        await exchange.complete()
        await exchange.connection.lost.wait()

    async with ScriptedUpstream() as upstream:
        upstream.queue(Step(early, at="head"), answer_bytes(200, b"good"))
        response = await ask(transport, upstream, LARGE)
        assert (response.status, await response.read_all(9)) == (429, b"later")
        response.close()
        assert await whole(transport, upstream) == b"good"
        assert len(upstream.connections) == 2
        upstream.connections[0].resume_reading()


async def test_a_stream_that_begins_before_the_body_is_in(transport: Transport) -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.head(200)
        await exchange.chunk(b"begun ")
        await exchange.read_body()
        await exchange.chunk(b"%d" % len(exchange.body))

    async with ScriptedUpstream(Step(echo, at="head")) as upstream:
        assert await whole(transport, upstream, LARGE) == b"begun %d" % len(LARGE)
        assert await whole(transport, upstream) == b"begun 2"
        assert len(upstream.connections) == 1


async def test_a_peer_that_ends_its_side_while_the_body_goes_out(transport: Transport) -> None:
    """It can say nothing more, so waiting for it to read the rest is of no use."""

    async def half(exchange: Exchange) -> None:
        exchange.connection.pause_reading()
        exchange.connection.half_close()
        await exchange.connection.lost.wait()

    async with ScriptedUpstream() as upstream:
        upstream.queue(Step(half, at="head"))
        began = time.monotonic()
        task = asyncio.ensure_future(ask(transport, upstream, LARGE))
        with pytest.raises(UpstreamError) as caught:
            await task
        assert caught.value.outcome == "reset"
        assert time.monotonic() - began < 20
        upstream.connections[0].resume_reading()


async def test_a_half_closed_peer_has_answered_all_the_same(transport: Transport) -> None:
    async with raw([answer(b"good"), "half"], [b"HTTP/1.1 200 OK\r\n\r\nabc", "half"]) as server:
        assert await whole(transport, server.url) == b"good"
        await server.peers[0].gone.wait()
        assert await whole(transport, server.url) == b"abc"
        assert await whole(transport, server.url) == b"own"


# --- who reads slowly, or not at all


async def test_a_peer_that_dies_while_its_answer_waits_to_be_read(transport: Transport) -> None:
    body = b"x" * 300_000
    for end in ("close", "reset"):
        script = [answer(body)[:-1], "turn", end]
        async with raw(script) as server:  # type: ignore[arg-type]
            response = await ask(transport, server.url)
            await asyncio.sleep(0.01)
            data, error = await rest_of(response)
            assert error.outcome == "truncated"
            assert body.startswith(data)
            if end == "close":
                assert len(data) == len(body) - 1
            assert await whole(transport, server.url) == b"own"


async def test_finish_reads_on_what_was_paused(transport: Transport) -> None:
    body = b"x" * 1_000_000
    async with raw([answer(body)]) as server:
        response = await ask(transport, server.url)
        (wire,) = upstream_wires(transport)
        while not wire._paused:
            await asyncio.sleep(0)
        response.finish()
        while wire not in next(iter(transport._pools.values()))._free:
            await asyncio.sleep(0)
        assert await whole(transport, server.url) == b"own"
        assert len(server.peers) == 1


# --- cancellation


async def test_cancelled_at_every_turn(transport: Transport, tmp_path: Path) -> None:
    """However far a request has come, cancelling it leaves no connection behind but a good one."""
    async with raw() as server:
        for turns in range(25):
            task = asyncio.ensure_future(whole(transport, server.url, b"cut"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.result() == b"own"
            assert await whole(transport, server.url, b"next") == b"own"
            assert server.requests[-1][1] == b"next"
            for wire in upstream_wires(transport):
                assert wire in next(iter(transport._pools.values()))._free or (
                    wire.transport.is_closing()
                )


async def test_cancelled_while_it_streams(transport: Transport) -> None:
    async with ScriptedUpstream(sse(["1", hang])) as upstream:
        response = await ask(transport, upstream)
        task = asyncio.ensure_future(response.stream(lambda data: True))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        response.close()
        await upstream.disconnected()


# --- time


async def test_the_deadline_wins_over_the_other_time_outs(transport: Transport) -> None:
    async with raw(default=["hang"]) as server:
        for first_byte, outcome in ((5, "deadline"), (0.02, "first_byte_timeout")):
            times, deadline = AttemptTimeouts(5, first_byte, 5), time.monotonic() + 0.04
            with pytest.raises(UpstreamTimeout) as caught:
                await ask(transport, server.url, times=times, deadline=deadline)
            assert caught.value.outcome == outcome
        before = len(server.requests)
        with pytest.raises(UpstreamTimeout, match="deadline"):
            await ask(transport, server.url, deadline=time.monotonic())
        assert len(server.requests) == before  # nothing is sent that nobody waits for


async def test_a_deadline_while_connecting(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("server.transport.pool.Pool._open", never)
    with pytest.raises(UpstreamTimeout) as caught:
        await ask(transport, "http://127.0.0.1:9", deadline=time.monotonic() + 0.02)
    assert caught.value.outcome == "deadline"


# --- what is left


async def test_nothing_is_left_of_what_was_closed() -> None:
    transport = Transport()
    async with raw() as server:
        endpoint = Endpoint(server.url)
        for _ in range(3):
            await whole(transport, endpoint.base_url)
        left = [weakref.ref(wire) for wire in upstream_wires(transport)]
        assert left
        await transport.close()
        for peer in server.peers:
            await peer.gone.wait()
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in left] == [None]
