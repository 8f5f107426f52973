"""What strict clients refuse in answers of those who follow OpenAI loosely."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.dialects.base import Asked
from server.dialects.loose import Loose, reason_of
from server.dialects.table import dialect_of
from server.dialects.thoughts import Thinking
from server.errors import UpstreamAborted, UpstreamProtocol, UpstreamStatus
from server.protocol import sse
from server.protocol.envelope import Surface
from tests.dialects.replay import (
    ASKED,
    HELLO,
    QUIET,
    chunks,
    read,
    reads,
    recorded,
    strict,
    strict_chunks,
)
from tests.replay.exchanges import Exchange
from tests.replay.reading import of_answer, of_chunks

PROMPT = {"prompt_filter_results": [{"prompt_index": 0}]}


def said(*events: dict[str, Any], asked: Asked = ASKED) -> list[dict[str, Any]]:
    """The chunks that clients get for these, which the SDK takes as they are."""
    stream = b"".join(sse.event(json.dumps(event).encode()) for event in events) + sse.DONE
    made = read(Loose().reader(asked), stream)
    if asked.surface is Surface.CHAT:
        strict_chunks(made)
    return chunks(made)


def part(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def answered(reason: str | None, **message: Any) -> dict[str, Any]:
    whole = {
        "id": "theirs-1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "a", **message},
                "finish_reason": reason,
            }
        ],
    }
    out, _ = Loose().answer_in(json.dumps(whole).encode(), ASKED)
    strict(out)
    choice: dict[str, Any] = json.loads(out)["choices"][0]
    return choice


def test_one_name_for_all_chunks() -> None:
    """Of theirs what there is, of ours the rest."""
    name = {"id": "theirs-1", "created": 0, "model": ""}
    first, second = said({**part(content="a"), **name}, {**part("stop"), "id": "other"})
    wanted = {
        "id": "theirs-1",
        "created": ASKED.created,
        "model": ASKED.model,
        "object": "chat.completion.chunk",
    }
    for found in (first, second):
        assert {name: found[name] for name in wanted} == wanted
    (bare, _) = said({**part(content="a"), "created": True, "model": 5}, part("stop"))
    assert (bare["id"], bare["created"], bare["model"]) == (ASKED.id, ASKED.created, ASKED.model)


def test_what_was_found_in_the_prompt_goes_on_with_the_first_words() -> None:
    blank = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    found = said(
        {**blank, **PROMPT, "x": None},
        {**part(role="assistant", content=""), "id": "theirs-1"},
        {**blank, "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}]},
        part("stop"),
    )
    assert found[0]["prompt_filter_results"] == PROMPT["prompt_filter_results"]
    assert "x" not in found[0]
    assert found[1]["choices"][0]["content_filter_results"] == {}
    assert {chunk["id"] for chunk in found} == {"theirs-1"}
    assert all(chunk["choices"] for chunk in found)


def test_calls_get_an_index() -> None:
    def call(identity: str | None, name: str | None, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"id": identity, "type": "", "function": function}

    found = said(
        part(tool_calls=[call("a", "f", '{"x"')]),
        part(tool_calls=[call("", None, ":1}")]),
        part(tool_calls=[call("b", "g", ""), call("c", "h", "{}")]),
        part(tool_calls=[call("b", None, "{}")]),
        part("stop"),
    )
    calls = [call for chunk in found for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0, 0, 1, 2, 1]
    assert [call.get("id") for call in calls] == ["a", None, "b", "c", None]
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("eos", "stop"),
        ("stop_sequence", "stop"),
        ("MAX_TOKENS", "length"),
        ("content_filter: RECITATION", "content_filter"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
    ],
)
def test_reasons_to_finish(theirs: str, ours: str) -> None:
    assert said(part(content="a"), part(theirs))[-1]["choices"][0]["finish_reason"] == ours
    assert answered(theirs)["finish_reason"] == ours


def test_a_whole_answer() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    found = answered("stop", tool_calls=[call])
    assert found["message"]["tool_calls"] == [{**call, "type": "function"}]
    assert found["finish_reason"] == "tool_calls"
    assert answered(None)["finish_reason"] == "stop"
    assert answered("stop", tool_calls=None)["finish_reason"] == "stop"


@pytest.mark.parametrize(("tier", "kept"), [("on_demand", False), ("flex", True), (None, True)])
def test_tiers_of_their_own_go(tier: str | None, kept: bool) -> None:
    for found in said({**part("stop"), "service_tier": tier}):
        assert ("service_tier" in found) is kept


def test_the_role_once_and_usage_when_asked() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    events = [
        part(role="assistant", content="a"),
        part(role="assistant", content="b"),
        {**part("stop"), "usage": usage},
    ]
    found = said(*events)
    assert ["role" in chunk["choices"][0]["delta"] for chunk in found[:-1]] == [True, False, False]
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], usage)
    assert all("usage" not in chunk for chunk in said(*events, asked=QUIET))


def test_completions() -> None:
    asked = replace(ASKED, surface=Surface.COMPLETIONS)
    event = {"object": "text_completion.chunk", "choices": [{"text": "a", "finish_reason": "eos"}]}
    (found,) = said(event, asked=asked)
    assert found["object"] == "text_completion"
    assert found["choices"] == [{"text": "a", "finish_reason": "stop", "index": 0}]
    out, _ = Loose().answer_in(json.dumps(event).encode(), asked)
    assert json.loads(out)["choices"] == found["choices"]


def test_embeddings_pass() -> None:
    payload = b'{"object": "list",  "data": []}'
    asked = replace(ASKED, surface=Surface.EMBEDDINGS)
    assert Loose().answer_in(payload, asked)[0] is payload


def test_errors_are_errors() -> None:
    error = {"error": {"code": 502, "message": "x"}}
    with pytest.raises(UpstreamStatus):
        said(error)
    with pytest.raises(UpstreamAborted):
        said(part("error"))
    assert Loose().answer_in(json.dumps(error).encode(), ASKED)[1].error
    with pytest.raises(UpstreamProtocol):
        Loose().answer_in(b"[]", ASKED)


def test_it_is_a_setting_of_openai_alone() -> None:
    assert isinstance(dialect_of("openai", {"answers": "tidy"}), Loose)
    assert dialect_of("openai", {"answers": "keep"}) is None
    both = {"answers": "tidy", "think_tags": "split"}
    assert isinstance(dialect_of("openai", both), Thinking)


@pytest.mark.parametrize("provider", ["openai", "huggingface", "deepseek"])
def test_real_traffic_means_what_it_meant(recordings_dir: Path, provider: str) -> None:
    """What is right stays so, and whatever others add, strict clients take it."""
    seen = 0
    for data in recorded(recordings_dir, provider):
        one = Exchange("", data)
        if one.status != 200 or not one.path.endswith("/chat/completions"):
            continue
        seen += 1
        lenient = reads(200, one.body, one.kind, strict=False).chat.completions
        create: Any = lenient.create
        if one.streamed:
            theirs = of_chunks(create(model="m", messages=HELLO, stream=True), strict=False)
            stream = one.body if one.body.endswith(b"\n\n") else one.body + b"\n\n"
            ours = of_chunks(strict_chunks(read(Loose().reader(ASKED), stream, seen)))
        else:
            theirs = of_answer(create(model="m", messages=HELLO))
            ours = of_answer(strict(Loose().answer_in(one.body, ASKED)[0]))
        if ours["calls"] and theirs["finish"] == "stop":  # where the call was forced
            theirs["finish"] = "tool_calls"
        assert ours == {**theirs, "finish": reason_of(theirs["finish"])}, data["source"]
    assert seen
