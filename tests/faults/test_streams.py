"""Streams that break after they have begun: an error event, no `[DONE]`, never a success."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.client import RawClient
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    answer_bytes,
    bad_chunk_size,
    bad_utf8,
    chat_answer,
    chat_events,
    chat_stream,
    close,
    cut_chunk,
    done,
    endless_line,
    error_event,
    garbage_bytes,
    garbage_event,
    hang,
    reset,
    short_body,
    sse,
)
from tests.faults.conftest import (
    ASK,
    CHAT,
    ONE,
    TWO,
    House,
    Serve,
    answered_by,
    broken,
    config_of,
    events_of,
)

BEGUN = chat_events(["Once"], finish=None, ends=False)
MIB = 2**20


async def begun(house: House, upstream: ScriptedUpstream, items: list[Any]) -> list[bytes]:
    """What a client gets of a stream that began well and goes on with `items`, once it has read
    the good beginning."""
    gate = Gate(len(BEGUN))
    upstream.queue(sse([*BEGUN, *items], gate=gate))
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        assert (await client.read_head()).status == 200
        first = [await client.read_event() for _ in BEGUN]
        gate.open()
        return first + await events_of(client)


async def ended_badly(house: House, upstream: ScriptedUpstream, outcome: str, end: str) -> None:
    """The books of one stream that broke, and nothing goes on behind it."""
    assert await house.metric("stream_end_total", model="m", reason=end) == 1
    assert await house.metric("stream_end_total") == 1
    assert await house.metric("attempts_total", target=ONE, outcome=outcome) == 1
    assert await house.metric("attempts_total", outcome="ok") == 0
    await upstream.requests[0].finished.wait()
    if not upstream.requests[0].completed:  # what came whole may be used again
        assert upstream.open_connections == 0


@pytest.mark.parametrize(
    ("items", "outcome", "end"),
    [
        pytest.param([garbage_event, done], "protocol", "protocol", id="garbage"),
        pytest.param([garbage_bytes, done], "protocol", "protocol", id="bytes"),
        pytest.param([bad_utf8, done], "protocol", "protocol", id="bad UTF-8"),
        pytest.param([bad_chunk_size], "protocol", "protocol", id="bad chunk size"),
        pytest.param([cut_chunk], "truncated", "truncated", id="cut in mid-chunk"),
        pytest.param([close], "truncated", "truncated", id="truncated coding"),
        pytest.param([reset], "truncated", "truncated", id="reset"),
        pytest.param([], "truncated", "truncated", id="no DONE"),
        pytest.param(["[DO"], "protocol", "protocol", id="half a DONE"),
        pytest.param([error_event("inside"), done], "http_5xx", "upstream_error", id="error event"),
        pytest.param(chat_events(["x"], finish="abort"), "aborted", "aborted", id="aborted"),
    ],
)
async def test_broken_in_mid_stream(
    house: House,
    one: ScriptedUpstream,
    two: ScriptedUpstream,
    items: list[Any],
    outcome: str,
    end: str,
) -> None:
    events = await begun(house, one, items)
    assert b"Once" in b"".join(events[: len(BEGUN)])
    error = broken(events)
    assert error["type"] == "server_error"
    assert "inside" not in error["message"]
    assert two.requests == []  # there is no second attempt behind the commit point
    await ended_badly(house, one, outcome, end)


async def test_a_stall(serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream) -> None:
    provider = {"timeouts": {"inter_chunk": "100ms"}}
    house = await serve(config_of(one, two, provider=provider))
    assert broken(await begun(house, one, [hang]))["code"] == "upstream_timeout"
    await one.disconnected()
    await ended_badly(house, one, "stall", "stall")


async def test_the_time_between_two_chunks_is_each_targets_own(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """A stall for one target is a pause for another."""
    config = config_of(one, two, server={"timeouts": {"inter_chunk": "50ms"}})
    config["models"]["m"]["targets"][0]["timeouts"] = {"inter_chunk": "60s"}
    house = await serve(config)
    pause = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, pause.set)
    one.queue(sse([*BEGUN, pause, *chat_events(["upon"])]))
    answered_by(await house.ask(stream=True), ONE)
    assert await house.metric("stream_end_total", reason="done") == 1


async def test_a_line_of_100_mb(house: House, one: ScriptedUpstream) -> None:
    """Given up at 1 MiB, and no more of it held than that and the sockets' buffers."""
    gate = Gate(len(BEGUN))
    one.queue(sse([*BEGUN, endless_line(100 * MIB)], gate=gate))
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        first = [await client.read_event() for _ in BEGUN]
        tracemalloc.start()
        try:
            gate.open()
            error = broken(first + await events_of(client))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert error["code"] == "upstream_protocol"
    await ended_badly(house, one, "protocol", "protocol")
    assert one.requests[0].written < 20 * MIB
    assert peak < 20 * MIB


async def test_a_whole_answer_of_100_mb(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "application/json"})
        await exchange.chunk(b'{"choices": "')
        for _ in range(100 * 16):
            await exchange.chunk(b"x" * 2**16)

    one.queue(endless)
    house = await serve(config_of(one, two, server={"limits": {"answer": "1MiB"}}))
    tracemalloc.start()
    try:
        answer = await house.ask()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_too_large")
    assert await house.metric("attempts_total", target=ONE, outcome="too_large") == 1
    await one.requests[0].finished.wait()
    assert one.requests[0].written < 20 * MIB
    assert peak < 20 * MIB


WHOLE: dict[str, tuple[Callable[[Exchange], Awaitable[None]], str]] = {
    "garbage": (answer_bytes(200, b"<html>502</html>"), "protocol"),
    "bad UTF-8": (answer_bytes(200, b'{"choices": ["\xff\xfe"]}'), "protocol"),
    "no object": (answer_bytes(200, b"[1]"), "protocol"),
    "empty": (answer_bytes(200, b""), "protocol"),
    "short": (short_body(), "truncated"),
    "truncated coding": (sse([b'{"choices": ', close]), "truncated"),
    "cut in mid-chunk": (sse([b'{"choices": ', cut_chunk]), "truncated"),
    "reset": (sse([b'{"choices": ', reset]), "truncated"),
}


@pytest.mark.parametrize("name", list(WHOLE))
async def test_a_broken_whole_answer(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream, name: str
) -> None:
    """Never a success; and never bought twice, since it was paid for."""
    script, outcome = WHOLE[name]
    one.queue(script)
    answer = await house.ask()
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == f"upstream_{outcome}"
    assert two.requests == []
    assert await house.metric("attempts_total", target=ONE, outcome=outcome) == 1
    assert await house.metric("attempts_total", outcome="ok") == 0
    assert await house.metric("requests_total", status="200") == 0
    assert await house.metric("tokens_total") == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", list(WHOLE))
async def test_broken_before_the_commit_point(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, name: str, stream: bool
) -> None:
    """Nothing has gone to the client, so that another target may answer where the config says so;
    the client sees nothing of the first."""
    script, outcome = WHOLE[name]
    one.default = script
    two.default = chat_stream(["from two"]) if stream else chat_answer("from two")
    house = await serve(config_of(one, two, provider={"retry_ambiguous": True}))
    answered_by(await house.ask(stream=stream), TWO)
    if not stream:  # a stream may be refused sooner, by its content type
        assert await house.metric("attempts_total", target=ONE, outcome=outcome) >= 1
    assert await house.metric("attempts_total", target=ONE, outcome="ok") == 0
    assert await house.metric("fallbacks_total", model="m") == 1


async def test_a_stream_that_only_comments(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """Comments commit nothing: the next target is asked, and the client sees its stream alone."""
    one.default = sse([b": alive\n\n", hang])
    two.default = chat_stream(["from two"])
    provider = {"timeouts": {"first_byte": "200ms"}, "retry_ambiguous": True}
    house = await serve(config_of(one, two, provider=provider))
    answer = await house.ask(stream=True)
    answered_by(answer, TWO)
    assert "alive" not in answer.text
    assert await house.metric("attempts_total", target=ONE, outcome="first_byte_timeout") >= 1


async def test_slow_bytes_are_no_fault(house: House, one: ScriptedUpstream) -> None:
    """A stream that comes byte by byte is a stream."""
    gate = Gate()
    one.queue(sse(chat_events(["slow"]), byte_gate=gate))
    async with RawClient(port=house.port) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        exchange = await one.next_request()
        size = 0
        while not exchange.finished.is_set() and size < 4000:
            gate.release()
            size += 1
            await asyncio.sleep(0)
        gate.open()
        assert (await client.read_head()).status == 200
        assert (await events_of(client))[-1] == b"data: [DONE]"
    assert await house.metric("stream_end_total", reason="done") == 1
