"""Streams up to the commit point, broken in the middle, and clients that stop reading."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.errors import RoundhouseError, UpstreamError
from server.transport import AttemptTimeouts
from tests.fakes.faults import (
    bad_chunk_size,
    bad_utf8,
    close,
    cut_chunk,
    endless_line,
    error_event,
    garbage_bytes,
    garbage_event,
    hang,
    reset,
)
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    chat_answer,
    chat_events,
    chat_stream,
    comment,
    done,
    sse,
)
from tests.routing.conftest import (
    CHUNK,
    FakeTarget,
    Run,
    bytes_of,
    ends_in_error,
    ends_well,
    payloads,
    request_of,
    text_of,
)

# --- the commit point


async def test_comments_do_not_commit(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    gate = Gate()
    upstream.queue(chat_stream(before=[comment("1"), comment("2")], gate=gate))
    task = run.start(request_of(), one)
    exchange = await upstream.next_request()
    gate.release(2)
    await exchange.sent.at_least(2)
    assert not run.sink.started
    gate.open()
    await task
    ends_well(run)
    assert run.sink.data == bytes_of(chat_events())


async def test_comments_keep_a_started_client_alive_but_not_the_upstream(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    """A target that only sends comments is given up in time, however many it sends."""
    one.timeouts = AttemptTimeouts(5, 0.15, 5)

    async def chatter(exchange: Exchange) -> None:
        await exchange.head(200, {"content-type": "text/event-stream"})
        while True:
            await exchange.chunk(comment("alive"))
            await exchange.wait(run.sink.written.at_least(run.sink.written.count + 1))

    upstream.queue(chatter)
    run.sink.started = True
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(), one)
    assert caught.value.outcome == "first_byte_timeout"
    assert run.sink.data.startswith(b": alive\n\n: alive\n\n")
    assert not run.sink.committed


async def test_a_comment_does_not_shorten_the_wait(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    run.pace = type(run.pace)(5, 0.01, 1 << 20, 1 << 20)  # a short write time-out
    gate = Gate(1)
    late = asyncio.Event()
    upstream.queue(sse([comment("alive"), late, *chat_events()]))
    run.sink.started = True
    task = run.start(request_of(), one)
    await run.sink.written.at_least(1)
    asyncio.get_running_loop().call_later(0.05, late.set)
    await task
    assert run.record.end == "done"
    gate.open()


@pytest.mark.parametrize(
    ("items", "outcome"),
    [
        ([error_event("boom"), done], "http_5xx"),
        ([error_event("slow down", 429)], "http_429"),
        (chat_events(["a"], finish="abort"), "aborted"),
        ([garbage_event], "protocol"),
        ([bad_utf8], "protocol"),
        ([garbage_bytes], "protocol"),
        ([done], "protocol"),
        ([close], "truncated"),
        ([], "truncated"),
        ([comment("x")], "truncated"),
        ([CHUNK, error_event("boom"), done], "http_5xx"),
        ([CHUNK, bad_utf8], "protocol"),
    ],
)
async def test_before_the_commit_point_errors_keep_their_status(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, items: list[Any], outcome: str
) -> None:
    def joined() -> list[Any]:
        """All in one piece, so that it comes in one read."""
        return [item for item in items if callable(item)] or [bytes_of(items)]

    run.patience(1)
    upstream.queue(sse(joined()))
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(), one)
    assert caught.value.outcome == outcome
    assert not run.sink.started
    assert run.sink.data == b""
    assert run.attempts() == {("one", outcome): 1}


# --- in mid-stream


@pytest.mark.parametrize(
    ("items", "outcome", "end"),
    [
        ([error_event("boom"), done], "http_5xx", "upstream_error"),
        ([{"choices": [{"delta": {}, "finish_reason": "abort"}]}, done], "aborted", None),
        ([{"choices": [{"delta": {}, "finish_reason": "error"}]}, done], "aborted", None),
        ([garbage_event, done], "protocol", None),
        ([garbage_bytes, done], "protocol", None),
        ([bytes_of([CHUNK, garbage_bytes, CHUNK, done])], "protocol", None),
        ([bad_utf8, done], "protocol", None),
        ([b"data: [1]\n\n"], "protocol", None),
        ([close], "truncated", None),
        ([reset], "truncated", None),
        ([cut_chunk], "truncated", None),
        ([bad_chunk_size], "protocol", None),
        ([endless_line()], "protocol", None),
        ([], "truncated", None),
        ([b"data: [DO"], "truncated", None),
    ],
)
async def test_broken_in_mid_stream(
    run: Run,
    upstream: ScriptedUpstream,
    one: FakeTarget,
    items: list[Any],
    outcome: str,
    end: str | None,
) -> None:
    gate = Gate(1)
    upstream.queue(sse([CHUNK, *items], gate=gate))
    task = run.start(request_of(), one)
    await run.sink.written.at_least(1)
    gate.open()
    await task
    error = ends_in_error(run, outcome, end)
    assert payloads(run.sink.data)[0] == CHUNK
    assert error["type"] == "server_error"
    assert "boom" not in error["message"]
    assert len(run.targets[0].failures) == 1
    await upstream.requests[0].finished.wait()


async def test_an_event_over_our_limit_is_no_fault_of_the_target(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(sse([CHUNK, endless_line(begin=b'data: {"choices": "')]))
    await run(request_of(), one)
    ends_in_error(run, "too_large")
    assert one.failures == []


async def test_a_stall(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    one.timeouts = AttemptTimeouts(5, 5, 0.05)
    upstream.queue(sse([CHUNK, hang]))
    await run(request_of(), one)
    ends_in_error(run, "stall")
    await upstream.disconnected()


async def test_good_events_before_the_bad_one_are_delivered(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    bad: list[tuple[Any, str]] = [
        (error_event(), "http_5xx"),
        (garbage_event, "protocol"),
        (bad_utf8, "protocol"),
        (b"data: " + b"x" * 5000, "protocol"),
    ]
    for item, outcome in bad:
        fresh = Run(run.dispatcher.transport)
        fresh.pace = type(run.pace)(5, 5, 4096, 1 << 20)
        gate = Gate(1)
        good = [{**CHUNK, "id": "2"}, {**CHUNK, "id": "3"}]
        upstream.queue(sse([CHUNK, bytes_of([*good, item]), hang], gate=gate))
        task = fresh.start(request_of(), one)
        await fresh.sink.written.at_least(1)
        gate.release()
        if outcome == "protocol" and isinstance(item, bytes) and item.endswith(b"x"):
            await fresh.sink.written.at_least(2)
            upstream.requests[-1].connection._transport.write(b"1\r\nx\r\n")
        await task
        assert payloads(fresh.sink.data)[:3] == [CHUNK, *good]
        assert len(payloads(fresh.sink.data)) == 4
        assert fresh.attempts() == {("one", outcome): 1}
        await upstream.disconnected()


async def test_missing_done(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    upstream.queue(chat_stream(ends=False))
    await run(request_of(), one)
    ends_in_error(run, "truncated")
    assert text_of(run.sink.data) == "Hello"


# --- the client


async def test_a_slow_client(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    run.pace = type(run.pace)(5, 0.05, 1 << 20, 1 << 20)
    gate = Gate(1)
    upstream.queue(chat_stream(["x"] * 100, gate=gate))
    task = run.start(request_of(), one)
    await run.sink.written.at_least(1)
    run.sink.reads.clear()
    gate.release()
    with pytest.raises(RoundhouseError) as caught:
        await task
    assert caught.value.code == "slow_client"
    assert run.record.end == "slow_client"
    assert run.attempts() == {("one", "slow_client"): 1}
    await upstream.disconnected()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_slow_client_at_the_end(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, stream: bool
) -> None:
    """The last write, the end and a whole answer are bounded, too."""
    run.pace = type(run.pace)(5, 0.05, 1 << 20, 1 << 20)
    run.sink.reads.clear()
    upstream.queue(chat_stream(["x"]) if stream else chat_answer())
    with pytest.raises(RoundhouseError) as caught:
        await run(request_of(stream=stream), one)
    assert caught.value.code == "slow_client"
    assert run.attempts() == {("one", "slow_client"): 1}


async def test_a_slow_client_of_a_broken_stream(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    run.pace = type(run.pace)(5, 0.05, 1 << 20, 1 << 20)
    gate = Gate(1)
    upstream.queue(sse([CHUNK, close], gate=gate))
    task = run.start(request_of(), one)
    await run.sink.written.at_least(1)
    run.sink.reads.clear()
    gate.open()
    with pytest.raises(RoundhouseError) as caught:
        await task
    assert caught.value.code == "slow_client"
    assert run.record.end == "truncated"


async def test_back_pressure_reaches_the_upstream(run: Run, one: FakeTarget) -> None:
    chunk = {"id": "x" * 60_000, "choices": [{"index": 0, "delta": {}}]}
    async with ScriptedUpstream(sndbuf=65536) as upstream:
        one.url = upstream.url
        upstream.queue(sse([CHUNK, *[chunk] * 400, done]))
        run.sink.reads.clear()
        task = run.start(request_of(), one)
        exchange = await upstream.next_request()
        await exchange.sent.at_least(2)
        for _ in range(500):  # turns of the loop in which a relay without brakes would read all
            await asyncio.sleep(0)
        assert exchange.written < 12 << 20
        assert not exchange.finished.is_set()
        run.sink.reads.set()
        await task
    ends_well(run)
    assert len(run.sink.data) > 400 * 60_000


@pytest.mark.parametrize("started", [False, True])
async def test_cancelling_closes_the_upstream(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, started: bool
) -> None:
    upstream.queue(sse([CHUNK, hang]) if started else hang)
    task = run.start(request_of(), one)
    await upstream.next_request()
    if started:
        await run.sink.written.at_least(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.disconnected()
    assert run.attempts() == {("one", "client_gone"): 1}
    assert run.sink.ended == 0
    assert run.targets[0].failures == []
