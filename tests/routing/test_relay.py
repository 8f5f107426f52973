"""Streams and whole answers on their way to the client."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from server.dialects.openai import PATHS, Usage
from server.errors import UpstreamError
from server.protocol.envelope import Surface
from server.transport import AttemptTimeouts
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    chat_answer,
    chat_events,
    chat_stream,
    comment,
    completion_stream,
    done,
    embeddings_answer,
    sse,
)
from tests.routing.conftest import (
    CHUNK,
    FakeTarget,
    Run,
    bytes_of,
    ends_well,
    payloads,
    request_of,
)

WANTS: dict[str, Any] = {"stream_options": {"include_usage": True}}

# --- bytes pass


@pytest.mark.parametrize("seed", range(6))
async def test_bytes_pass_untouched(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, seed: int
) -> None:
    events = chat_events(["é", "🚂", 'a "quoted" [DONE] word'], usage="chunk")
    events.insert(2, comment("keep-alive"))
    upstream.queue(sse(events, splits=random.Random(seed)))
    await run(request_of(**WANTS), one)
    ends_well(run)
    assert run.sink.data == bytes_of(events)
    assert run.record.usage == Usage(7, 3)
    assert run.record.first_token is not None
    assert run.record.target == "one"


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r"])
async def test_any_line_ends(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, separator: str
) -> None:
    upstream.queue(chat_stream(separator=separator))
    await run(request_of(), one)
    assert run.record.end == "done"
    assert run.sink.data.count(b"data: [DONE]") == 1
    assert b'"usage"' not in run.sink.data
    assert run.record.usage == Usage(7, 2)


async def test_completions_stream(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    upstream.queue(completion_stream())
    await run(request_of(surface=Surface.COMPLETIONS, prompt="a"), one)
    ends_well(run)


async def test_each_event_goes_out_when_it_comes(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    gate = Gate()
    upstream.queue(chat_stream(["a", "b"], gate=gate))
    task = run.start(request_of(), one)
    for count in (1, 2, 3):
        gate.release()
        await run.sink.written.at_least(count)
        assert len(payloads(run.sink.data)) == count
    gate.open()
    await task
    ends_well(run)


async def test_nothing_after_done(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    upstream.queue(sse([CHUNK, done, CHUNK, done]))
    await run(request_of(), one)
    ends_well(run)
    assert run.sink.data == bytes_of([CHUNK, done])


async def test_the_connection_is_kept_after_done(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    gate = Gate(2)
    upstream.queue(sse([CHUNK, done, b""], gate=gate), chat_answer())
    await run(request_of(), one)
    ends_well(run)
    gate.open()
    exchange = upstream.requests[0]
    await exchange.finished.wait()
    assert not exchange.disconnected.is_set()


# --- usage


@pytest.mark.parametrize(
    ("usage", "withheld"), [("chunk", 1), ("null", 1), ("every", 1), ("finish", 0), ("none", 0)]
)
async def test_usage_is_withheld_from_who_did_not_ask(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, usage: Any, withheld: int
) -> None:
    upstream.queue(chat_stream(usage=usage))
    await run(request_of(), one)
    ends_well(run)
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    expected = chat_events(usage=usage)
    kept = [e for e in expected if not (isinstance(e, dict) and e["choices"] == [])]
    assert len(expected) - len(kept) == withheld
    assert run.sink.data == bytes_of(kept)
    assert run.record.usage == (None if usage == "none" else Usage(7, 2))


@pytest.mark.parametrize("usage", ["chunk", "null", "every", "finish"])
async def test_usage_is_passed_to_who_asked(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, usage: Any
) -> None:
    upstream.queue(chat_stream(usage=usage, cached_tokens=3))
    await run(request_of(**WANTS), one)
    ends_well(run)
    assert run.sink.data == bytes_of(chat_events(usage=usage, cached_tokens=3))
    assert run.record.usage == Usage(7, 2, 3)


async def test_a_first_chunk_without_choices_is_no_usage(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    azure = {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    events = [azure, *chat_events()]
    upstream.queue(sse(events))
    await run(request_of(), one)
    assert run.sink.data == bytes_of(events)


async def test_a_withheld_event_alone_is_no_answer(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(sse([{"choices": [], "usage": {"prompt_tokens": 1}}, done]))
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(), one)
    assert caught.value.outcome == "protocol"
    assert not run.sink.started


# --- legacy functions


FUNCTIONS: dict[str, Any] = {"functions": [{"name": "weather"}]}


async def test_legacy_functions_in_a_stream(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(chat_stream([], tools=[("weather", ['{"city":', '"é"}'])], finish="tool_calls"))
    await run(request_of(**FUNCTIONS), one)
    ends_well(run)
    sent = upstream.requests[0].json()
    assert sent["tools"] == [{"type": "function", "function": {"name": "weather"}}]
    assert "functions" not in sent
    choices = [c for p in payloads(run.sink.data)[:-1] for c in p["choices"]]
    calls = [c["delta"]["function_call"] for c in choices if "function_call" in c["delta"]]
    assert "".join(call["arguments"] for call in calls) == '{"city":"é"}'
    assert [call["name"] for call in calls if "name" in call] == ["weather"]
    assert choices[-1]["finish_reason"] == "function_call"
    assert "tool_calls" not in run.sink.data.decode()


async def test_legacy_functions_whole(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    upstream.queue(chat_answer(tool_calls=[call], finish="tool_calls"))
    await run(request_of(stream=False, **FUNCTIONS), one)
    assert run.sink.answer is not None
    choice = json.loads(run.sink.answer)["choices"][0]
    assert choice["message"]["function_call"] == call["function"]
    assert choice["finish_reason"] == "function_call"


# --- whole answers


async def test_a_whole_answer_passes_untouched(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    body = b'\n\n {"choices": [ ], "usage":{"prompt_tokens": 3}, "x": 1.0e1}'
    upstream.queue(answer_bytes(200, body))
    await run(request_of(stream=False), one)
    assert run.sink.answer == body
    assert run.record.usage == Usage(3, partly=True)
    assert run.attempts() == {("one", "ok"): 1}


async def test_embeddings(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    upstream.queue(embeddings_answer())
    await run(request_of(stream=False, surface=Surface.EMBEDDINGS, input="a"), one)
    assert upstream.requests[0].path == "/v1/embeddings"
    assert run.record.usage == Usage(1)


async def test_what_only_engines_answer_is_not_looked_into(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATHS, Surface.TOKENIZE, "/tokenize")
    upstream.queue(answer_bytes(200, b'{"tokens": [1]}'))
    await run(request_of(stream=False, surface=Surface.TOKENIZE, prompt="a"), one)
    assert run.sink.answer == b'{"tokens": [1]}'


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (answer_bytes(200, b"<html>", content_type="text/html"), "protocol"),
        (answer_bytes(200, b"", framing="length"), "protocol"),
        (answer_bytes(200, b'{"choices":[]}', encoding="gzip"), "protocol"),
        (answer_bytes(200, b" " * (5 << 20)), "too_large"),
        (answer_bytes(200, b'{"choices":[{"message":{"content":"\xff"}}]}'), "protocol"),
        (answer_json(200, {"error": {"message": "x"}}), "http_5xx"),
        (chat_answer(finish="abort"), "aborted"),
        (answer_bytes(204, b"", framing="none"), "protocol"),
    ],
)
async def test_what_is_no_whole_answer(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, script: Any, outcome: str
) -> None:
    run.patience(1)
    upstream.queue(script)
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(stream=False), one)
    assert caught.value.outcome == outcome
    assert run.sink.answer is None


async def test_a_whole_answer_that_stalls(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    one.timeouts = AttemptTimeouts(5, 5, 0.05)
    gate = Gate(3)
    upstream.queue(chat_answer(gate=gate))
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(stream=False), one)
    assert caught.value.outcome == "stall"
    await upstream.disconnected()


async def test_a_whole_answer_that_stalls_behind_its_first_bytes(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    """What comes in with the head starts the clock between chunks, too."""

    async def half(exchange: Exchange) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
        await exchange.write(head + b'{"choices":')
        await exchange.hang()

    one.timeouts = AttemptTimeouts(5, 3600, 0.05)
    upstream.queue(half)
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(stream=False), one)
    assert caught.value.outcome == "stall"


async def test_a_stream_that_is_none(run: Run, upstream: ScriptedUpstream, one: FakeTarget) -> None:
    upstream.queue(chat_answer())
    with pytest.raises(UpstreamError) as caught:
        await run(request_of(), one)
    assert caught.value.outcome == "protocol"
