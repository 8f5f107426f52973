"""Clients that are slow, do not read, or go: bounded waits, bounded memory, no work for nobody."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from tests.fakes.client import RawClient
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    chat_answer,
    chat_stream,
    hang_before_head,
)
from tests.faults.conftest import ASK, CHAT, ONE, TWO, House, Serve, answered_by, config_of

MIB = 2**20
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


# --- slow to ask


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp", HEAD, HEAD + b"x-much: "])
async def test_slow_headers(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, sent: bytes
) -> None:
    house = await serve(config_of(one, two, server={"timeouts": {"header": "100ms"}}))
    async with RawClient(port=house.port) as client:
        await client.send(sent)
        assert (await client.read_head()).status == 408
        await client.read_body()
        await client.closed()
    assert await house.metric("shed_total", reason="slow_client") == 1
    assert one.requests == []


async def test_headers_byte_by_byte_have_the_same_deadline(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """No byte begins the time anew."""
    house = await serve(config_of(one, two, server={"timeouts": {"header": "200ms"}}))
    async with RawClient(port=house.port) as client:
        await client.send(b"GET /health HTTP/1.1\r\nx: ")
        answer = asyncio.create_task(client.read_head())
        while not answer.done():
            await client.send(b"y")
            await asyncio.wait({answer}, timeout=0.02)
        assert (await answer).status == 408
    assert await house.metric("shed_total", reason="slow_client") == 1


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_a_slow_body(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, framing: bytes
) -> None:
    house = await serve(config_of(one, two, server={"timeouts": {"body": "100ms"}}))
    async with RawClient(port=house.port) as client:
        await client.send(HEAD + framing + b"\r\n\r\n")
        answer = asyncio.create_task(client.read_head())
        while not answer.done():
            await client.send(b"1\r\n{\r\n" if framing.endswith(b"chunked") else b" ")
            await asyncio.wait({answer}, timeout=0.02)
        assert (await answer).status == 408
    assert await house.metric("shed_total", reason="slow_body") == 1
    assert await house.metric("requests_total", status="408") == 1
    assert house.server.services.budget.held == 0
    assert one.requests == []


async def test_one_slow_client_holds_up_nobody(house: House, one: ScriptedUpstream) -> None:
    one.default = chat_answer("quick")
    async with RawClient(port=house.port) as head, RawClient(port=house.port) as body:
        await head.send(b"GET /hea")
        await body.send(HEAD + b"content-length: 100\r\n\r\n{")
        answered_by(await house.ask(), ONE)
        assert (await house.get("/health")).status_code == 200
        assert await house.metric_now("requests_total", status="200") == 1


# --- slow to read


async def test_a_slow_reader_of_a_stream(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """The upstream is held back, so that memory stays flat; then the client is closed."""
    house = await serve(config_of(one, two, server={"timeouts": {"write": "300ms"}}))

    async def without_end(exchange: Exchange) -> None:
        await chat_stream(["x" * 8192] * 12_000)(exchange)  # 100 MB

    one.queue(without_end)
    async with RawClient(port=house.port, rcvbuf=4096) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        exchange = await one.next_request()
        await client.read_head()
        client.pause()
        tracemalloc.start()
        try:
            await exchange.disconnected.wait()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert exchange.written < 20 * MIB
    assert peak < 20 * MIB
    assert await house.metric("shed_total", reason="slow_client") == 1
    assert await house.metric("stream_end_total", model="m", reason="slow_client") == 1
    assert await house.metric("attempts_total", target=ONE, outcome="slow_client") == 1


async def test_a_slow_reader_that_reads_again_loses_nothing(
    house: House, one: ScriptedUpstream
) -> None:
    sent = ["x" * 8192] * 2000
    one.queue(chat_stream(sent))
    async with RawClient(port=house.port, rcvbuf=4096) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        exchange = await one.next_request()
        await client.read_head()
        client.pause()
        before = -1
        while exchange.written != before:  # until nothing moves any more
            before = exchange.written
            for _ in range(500):
                await asyncio.sleep(0)
        assert not exchange.finished.is_set()
        client.resume()
        body = await client.read_body()
    assert body.count(b"x" * 8192) == len(sent)
    assert body.endswith(b"data: [DONE]\n\n")
    assert await house.metric("stream_end_total", reason="done") == 1
    assert await house.metric("shed_total") == 0


async def test_a_slow_reader_of_a_whole_answer(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    house = await serve(config_of(one, two, server={"timeouts": {"write": "200ms"}}))
    one.queue(chat_answer("x" * 20 * MIB))
    async with RawClient(port=house.port, rcvbuf=4096) as client:
        client.pause()
        await client.post(CHAT, ASK)
        await one.next_request()
        while not await house.metric_now("shed_total", reason="slow_client"):
            await asyncio.sleep(0)
    assert await house.metric("requests_total", model="m", status="200") == 1


# --- gone


@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream, stream: bool, rude: bool
) -> None:
    """The upstream is closed, and nobody else is asked for somebody who has left."""
    one.queue(chat_stream(["a"] * 50, gate=Gate(3)) if stream else hang_before_head())
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": stream})
        exchange = await one.next_request()
        if stream:
            await client.read_head()
            await client.read_event()
        assert await house.metric_now("requests_in_flight", model="m") == 1
        if rude:
            client.abort()
        else:
            client.close()
        await exchange.disconnected.wait()
    assert await house.metric("stream_end_total", reason="client_gone") == (1 if stream else 0)
    assert await house.metric("attempts_total", target=ONE, outcome="client_gone") == 1
    assert await house.metric("attempts_total") == 1
    assert await house.metric("requests_total", model="m", status="499") == 1
    assert await house.metric("requests_in_flight", model="m") == 0
    assert two.requests == []
    assert one.open_connections == 0


async def test_a_client_that_goes_while_the_second_target_is_asked(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    one.default = hang_before_head()
    two.default = hang_before_head()
    provider: dict[str, Any] = {"retry_ambiguous": True}
    config = config_of(one, two, provider=provider)
    config["providers"]["one"]["timeouts"] = {"first_byte": "50ms"}
    house = await serve(config)
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        exchange = await two.next_request()
        client.close()
        await exchange.disconnected.wait()
    assert await house.metric("attempts_total", target=TWO, outcome="client_gone") == 1
    assert await house.metric("stream_end_total", model="m", reason="client_gone") == 1
