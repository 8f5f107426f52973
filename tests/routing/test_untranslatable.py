"""What targets of another dialect have no word for, their errors, and odds and ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.dialects.table import DIALECTS
from server.errors import InvalidRequest
from server.routing.breaker import State
from server.routing.chain import Chain, Group, Keys
from server.targets import providers
from tests.fakes.messages import (
    message_answer,
    message_stream,
    refusal,
)
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    chat_answer,
    chat_stream,
    error,
)
from tests.routing.conftest import FakeTarget, request_of, text_of
from tests.routing.stage import BOOM, Stage

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
COHERE = {
    "id": "c",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "fine"}]},
    "usage": {"tokens": {"input_tokens": 1, "output_tokens": 1}},
}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


# --- what it has no word for


async def test_a_parameter_that_it_lacks_is_another_targets_chance(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
) -> None:
    second.queue(chat_answer("fine"))
    found = await stage.ask(stage.chain(claude, two), seed=3)
    assert (found.target, found.record.attempts, upstream.requests) == ("two", 1, [])
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "ability")
    assert stage.attempts(target="one") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_alone_it_is_refused(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget, stream: bool
) -> None:
    found = await stage.ask(stage.chain(claude), stream=stream, seed=3)
    assert isinstance(found.error, InvalidRequest)
    assert (found.status, found.error.code) == (400, "unsupported_parameter")
    assert found.error.param == "seed"
    assert (found.record.attempts, upstream.requests) == (0, [])


async def test_who_failed_says_more_than_who_refused(
    stage: Stage, second: ScriptedUpstream, claude: FakeTarget, two: FakeTarget
) -> None:
    stage.settings(attempts=1)
    second.queue(answer_json(500, error("boom")))
    found = await stage.ask(stage.chain(claude, two), seed=3)
    assert found.status == 500


async def test_who_rests_may_take_it_later(
    stage: Stage, second: ScriptedUpstream, claude: FakeTarget, two: FakeTarget
) -> None:
    resting = stage.route(two)
    second.queue(answer_json(429, error("slow down"), {"retry-after": "7"}))
    await stage.ask(stage.chain(resting))
    assert stage.state(resting) is State.RESTING
    found = await stage.ask(stage.chain(claude, resting), seed=3)
    assert (found.status, found.error and found.error.retry_after) == (429, 7)


# --- its errors


async def test_its_words_for_an_error(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    stage.settings(attempts=1)
    upstream.queue(refusal(529, "overloaded_error", **{"retry-after": "3"}))
    found = await stage.ask(stage.chain(claude))
    assert found.error is not None
    assert (found.status, found.error.retry_after) == (503, 3)


async def test_an_error_that_is_no_text(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
) -> None:
    upstream.queue(answer_bytes(503, b'{"error":{"message":"caf\xe9"}}'))
    second.queue(chat_answer("fine"))
    assert (await stage.ask(stage.chain(claude, two))).target == "two"


async def test_it_comes_after_one_of_openais(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
) -> None:
    second.queue(answer_json(500, error("boom")))
    upstream.queue(message_stream(["fine"]))
    found = await stage.ask(stage.chain(two, claude), stream=True, tools=TOOLS)
    assert (found.target, text_of(found.sink.data)) == ("one", "fine")
    assert upstream.requests[0].json()["tools"][0]["name"] == "f"


# --- odds and ends


async def test_functions_of_old(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}
    upstream.queue(message_answer(call, reason="tool_use"))
    found = await stage.ask(stage.chain(claude), functions=[{"name": "f"}])
    choice = json.loads(found.sink.answer or b"")["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"x":1}'}


@pytest.mark.parametrize("text", ["x", "x" * 300_000])
async def test_a_probe_is_one_however_long_its_body(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    claude: FakeTarget,
    two: FakeTarget,
    text: str,
) -> None:
    """It counts as under way while it is translated, beside the loop, too."""
    theirs = stage.route(claude)
    upstream.queue(*[BOOM] * 5)
    stage.settings(attempts=1)
    await stage.asks(stage.chain(theirs), 5)
    assert stage.state(theirs) is State.OPEN
    stage.clock.turn(10)
    assert stage.state(theirs) is State.HALF_OPEN
    upstream.default, second.default = message_answer("a"), chat_answer("b")
    chain = stage.chain(theirs, two)
    asked = [stage.start(chain, messages=[{"role": "user", "content": text}]) for _ in range(3)]
    found = await asyncio.gather(*asked)
    assert sorted(one.target or "" for one in found) == ["one", "two", "two"]


async def test_no_word_for_it_ends_no_probe(
    stage: Stage, upstream: ScriptedUpstream, claude: FakeTarget
) -> None:
    theirs = stage.route(claude)
    upstream.queue(*[BOOM] * 5, message_answer("a"))
    stage.settings(attempts=1)
    await stage.asks(stage.chain(theirs), 5)
    stage.clock.turn(10)
    assert (await stage.ask(stage.chain(theirs), seed=3)).status == 400
    assert stage.state(theirs) is State.HALF_OPEN
    assert (await stage.ask(stage.chain(theirs))).target == "one"


async def test_functions_of_old_where_calls_cannot_be_single(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    """Cohere has no `parallel_tool_calls`, which the client has not said."""
    one.dialect = DIALECTS["cohere"]
    upstream.queue(answer_json(200, COHERE))
    found = await stage.ask(stage.chain(one), functions=[{"name": "f", "parameters": SCHEMA}])
    assert found.target == "one"
    assert upstream.requests[0].json()["tools"][0]["function"]["name"] == "f"


async def test_another_key_is_no_fallback(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    upstream.queue(answer_json(429, error("slow down"), {"retry-after": "7"}))
    second.queue(chat_answer("fine"))
    first = stage.route(one)
    other = stage.route(two, place=first.place)
    found = await stage.ask(Chain(Group("m", (Keys((first, other)),))))
    assert (found.target, found.record.attempts) == ("two", 2)
    assert found.record.fallback_from is None
    assert stage.count("fallbacks_total") == 0


async def test_a_long_body_is_translated_aside(
    stage: Stage,
    upstream: ScriptedUpstream,
    claude: FakeTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aside: list[Any] = []

    async def to_thread(work: Any, *given: Any) -> Any:
        aside.append(work)
        return work(*given)

    monkeypatch.setattr(providers, "aside", to_thread)
    upstream.queue(message_answer("a"), message_answer("b"))
    await stage.ask(stage.chain(claude))
    assert aside == []
    text = "x" * 300_000
    request = request_of(stream=False, messages=[{"role": "user", "content": text}])
    await stage.ask(stage.chain(claude), request=request)
    assert len(aside) == 1
    assert upstream.requests[1].json()["messages"][0]["content"][0]["text"] == text


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_other_providers_answers_had_does_not_reach_who_refuses_it(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, strict: bool, stream: bool
) -> None:
    one.strict = strict
    upstream.queue(chat_stream(["fine"]) if stream else chat_answer("fine"))
    said = {"role": "assistant", "content": "a", "reasoning_content": "hm", "citations": []}
    messages = [{"role": "user", "content": "reasoning_content"}, said]
    request = request_of(stream=stream, messages=messages)
    found = await stage.ask(stage.chain(one), request=request)
    assert found.target == "one"
    sent = upstream.requests[0].json()["messages"]
    if strict:
        assert sent == [messages[0], {"role": "assistant", "content": "a"}]
        assert request.dropped == ("messages.reasoning_content",)
    else:
        assert (sent, request.dropped) == (messages, ())
