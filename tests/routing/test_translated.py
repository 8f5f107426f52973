"""Targets of another dialect in the attempt loop: what is sent, the commit point, the ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from server.dialects.table import DIALECTS
from server.routing import translated
from tests.fakes.exchange import Exchange
from tests.fakes.messages import (
    end,
    event,
    message_answer,
    message_stream,
    overloaded,
    start,
    text_events,
)
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    chat_stream,
    close,
    hang,
    reset,
    sse,
)
from tests.routing.conftest import PACE, FakeTarget, payloads, text_of
from tests.routing.stage import Asked, Stage


def last_error(found: Asked) -> Any:
    """The error event that ends a stream; no `[DONE]` follows it."""
    *_, last = payloads(found.sink.data)
    return last["error"]


async def test_a_whole_answer(stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget) -> None:
    upstream.queue(message_answer("Hello"))
    found = await stage.ask(stage.chain(claude), max_tokens=9)
    assert found.target == "one"
    answer = json.loads(found.sink.answer or b"")
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert (answer["object"], answer["model"]) == ("chat.completion", "m")
    sent = upstream.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.header("anthropic-version") == "2023-06-01"
    assert sent.header("authorization") == "Bearer up"
    assert sent.json()["max_tokens"] == 9
    assert found.record.usage is not None
    assert (found.record.usage.prompt, found.record.usage.completion) == (9, 3)


async def test_a_stream(stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget) -> None:
    upstream.queue(message_stream(["Hel", "lo"]))
    options = {"include_usage": True}
    found = await stage.ask(stage.chain(claude), stream=True, stream_options=options)
    assert found.error is None
    chunks = payloads(found.sink.data)
    assert chunks[-1] == "[DONE]"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["total_tokens"] == 12
    assert text_of(found.sink.data) == "Hello"
    assert (found.record.end, found.sink.ended) == ("done", 1)
    assert found.record.usage is not None
    assert found.record.usage.completion == 3
    assert found.record.first_token is not None
    assert stage.attempts(target="one", outcome="ok") == 1


async def test_one_connection_for_many(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    upstream.queue(message_stream(["a"]), message_answer("b"), message_stream(["c"]))
    for stream in (True, False, True):
        await stage.ask(stage.chain(claude), stream=stream)
    assert len(upstream.connections) == 1


async def test_an_error_behind_the_opening_is_another_targets_chance(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
) -> None:
    """The role alone commits nothing."""
    upstream.queue(sse([start(), event("ping"), overloaded()]))
    second.queue(chat_stream(["fine"]))
    found = await stage.ask(stage.chain(claude, two), stream=True)
    assert (found.target, text_of(found.sink.data)) == ("two", "fine")
    assert found.record.attempts == 2
    assert stage.attempts(target="one", outcome="http_5xx") == 1


async def test_alone_its_error_keeps_its_status(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    stage.settings(attempts=1)
    upstream.queue(sse([start(), overloaded()]))
    found = await stage.ask(stage.chain(claude), stream=True)
    assert (found.status, found.sink.started) == (503, False)


async def test_an_opening_is_not_held_for_long(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From then on the stream is committed, and an error is an event."""
    monkeypatch.setattr(translated, "HOLD", 0.0)
    gate = Gate()
    upstream.queue(sse([start(), overloaded()], gate=gate))
    task = stage.start(stage.chain(claude, two), stream=True)
    gate.release()
    while not stage.asked or not stage.asked[0].sink.committed:
        await asyncio.sleep(0)
    gate.release()
    found = await task
    assert payloads(found.sink.data)[0]["choices"][0]["delta"]["role"] == "assistant"
    assert last_error(found)["message"]
    assert (found.record.attempts, second.requests) == (1, [])


async def test_what_follows_an_opening_that_is_out(
    stage: Stage,
    upstream: ScriptedUpstream,
    claude: FakeTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(translated, "HOLD", 0.0)
    gate = Gate()
    upstream.queue(sse([start(), *text_events("x", "y"), *end()], gate=gate))
    task = stage.start(stage.chain(claude), stream=True)
    gate.release()
    while not stage.asked or not stage.asked[0].sink.committed:
        await asyncio.sleep(0)
    gate.open()
    found = await task
    chunks = payloads(found.sink.data)
    roles = [c for c in chunks[:-1] if c["choices"] and "role" in c["choices"][0]["delta"]]
    assert len(roles) == 1
    assert (text_of(found.sink.data), chunks[-1]) == ("xy", "[DONE]")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ([overloaded()], "upstream_error"),
        ([b"data: {nonsense\n\n"], "protocol"),
        ([event("content_block_delta", text="x").replace(b"x", b"\xff")], "protocol"),
        ([b"no field of an event\n\n"], "protocol"),
        ([close], "truncated"),
        ([reset], "truncated"),
        ([], "truncated"),
    ],
)
async def test_a_stream_that_breaks(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
    fault: list[Any],
    outcome: str,
) -> None:
    """What came before the fault is the client's; then an error, no `[DONE]`, no second attempt."""
    gate = Gate()
    upstream.queue(sse([start(), *text_events("one", "two")[:-1], *fault], gate=gate))
    task = stage.start(stage.chain(claude, two), stream=True)
    gate.release(4)
    while not stage.asked or text_of(stage.asked[0].sink.data) != "onetwo":
        await asyncio.sleep(0)
    gate.open()
    found = await task
    assert found.error is None
    assert text_of(found.sink.data) == "onetwo"
    assert last_error(found)["message"]
    assert (found.record.end, found.sink.ended, second.requests) == (outcome, 1, [])


async def test_a_stream_that_stalls(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    claude.timeouts = replace(claude.timeouts, inter_chunk=0.05)
    upstream.queue(sse([start(), *text_events("one")[:-1], hang]))
    found = await stage.ask(stage.chain(claude), stream=True)
    assert (found.record.end, last_error(found)["code"]) == ("stall", "upstream_timeout")


async def test_a_stream_that_does_not_begin(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    stage.settings(attempts=1)
    claude.timeouts = replace(claude.timeouts, first_byte=0.05)
    upstream.queue(sse([event("ping"), hang]))
    found = await stage.ask(stage.chain(claude), stream=True)
    assert (found.status, found.sink.started) == (504, False)
    assert stage.attempts(outcome="first_byte_timeout") == 1


async def test_signs_of_life_are_no_answer_for_ever(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    async def lives(exchange: Exchange) -> None:
        while True:
            await exchange.chunk(event("ping"))
            await asyncio.sleep(0)

    claude.timeouts = replace(claude.timeouts, first_byte=0.05, inter_chunk=0.1)
    upstream.queue(sse([start(), *text_events("x")[:-1], lives]))
    found = await stage.ask(stage.chain(claude), stream=True)
    assert (found.record.end, last_error(found)["code"]) == ("stall", "upstream_timeout")
    await upstream.disconnected()


@pytest.mark.parametrize("dialect", ["deepseek", "huggingface"])
@pytest.mark.parametrize(
    "payload",
    ["hello", "[]", '{"choices":[1]}', '{"choices":5}', '{"choices":[{"delta":5}]}', '{"cho'],
)
async def test_what_is_no_chunk_is_another_targets_chance(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    dialect: str,
    payload: str,
) -> None:
    one.dialect, one.retry_ambiguous = DIALECTS[dialect], True
    upstream.queue(sse([payload, hang]))
    second.queue(chat_stream(["fine"]))
    found = await stage.ask(stage.chain(one, two), stream=True)
    assert (found.target, text_of(found.sink.data)) == ("two", "fine")


async def test_a_stream_without_an_answer(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    stage.settings(attempts=1)
    upstream.queue(sse([event("message_stop")]))
    found = await stage.ask(stage.chain(claude), stream=True)
    assert (found.status, found.sink.started) == (502, False)


async def test_a_client_that_does_not_read(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    stage.pace = replace(PACE, write=0.05)
    gate = Gate()
    upstream.queue(message_stream(["a"] * 5, gate=gate))
    task = stage.start(stage.chain(claude), stream=True)
    gate.release(4)
    while not stage.asked or not stage.asked[0].sink.writes:
        await asyncio.sleep(0)
    stage.asked[0].sink.reads.clear()
    gate.open()
    found = await task
    assert found.error is not None
    assert (found.error.code, found.record.end) == ("slow_client", "slow_client")
    found.sink.ended = 1  # its connection is closed by who asked
    found.error = None


async def test_a_client_that_leaves(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    gate = Gate()
    upstream.queue(message_stream(["a"] * 5, gate=gate))
    task = stage.start(stage.chain(claude), stream=True)
    gate.release(4)
    while not stage.asked or not stage.asked[0].sink.writes:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.disconnected()
    assert stage.attempts(outcome="client_gone") == 1


async def test_the_head_may_be_out_already(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    """A stream that waited has got 200 and comments."""
    stage.pace = replace(PACE, waiting=0.0)
    claude.ready = False
    upstream.queue(message_stream(["fine"]))
    task = stage.start(stage.chain(claude), stream=True)
    while not stage.asked or not stage.asked[0].sink.started:
        await asyncio.sleep(0)
    claude.go.set()
    found = await task
    assert found.sink.data.startswith(b": ")
    assert text_of(found.sink.data) == "fine"
