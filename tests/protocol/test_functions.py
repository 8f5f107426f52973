"""The legacy functions, there and back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from server.errors import InvalidRequest, UpstreamProtocol
from server.protocol import functions

WEATHER = {"name": "weather", "parameters": {"type": "object"}}


def members(**fields: Any) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def tools(**fields: Any) -> dict[str, Any]:
    out = functions.to_tools(members(model="m", **fields))
    return {name: json.loads(bytes(value)) for name, value in out.items()}


def back(**fields: Any) -> Any:
    return json.loads(functions.answer_back(json.dumps(fields).encode()))


def test_who_speaks_functions() -> None:
    assert functions.is_legacy(members(functions=[]))
    assert functions.is_legacy(members(function_call="auto"))
    assert not functions.is_legacy(members(tools=[]))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ({"name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_functions_become_tools(choice: Any, expected: Any) -> None:
    fields = {} if choice is None else {"function_call": choice}
    assert tools(functions=[WEATHER], **fields) == {
        "model": "m",
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": expected,
        "parallel_tool_calls": False,
    }


def test_nothing_asked_is_nothing_sent() -> None:
    assert tools(functions=None, function_call=None) == {"model": "m"}
    assert tools(functions=[]) == {"model": "m"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [WEATHER], "tools": []}, "functions"),
        ({"functions": [WEATHER], "tool_choice": "auto"}, "functions"),
        ({"functions": "weather"}, "functions"),
        ({"functions": ["weather"]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [], "function_call": "none"}, "function_call"),
        ({"functions": [WEATHER], "function_call": "always"}, "function_call"),
        ({"functions": [WEATHER], "function_call": {"name": 1}}, "function_call"),
        ({"functions": [WEATHER], "function_call": {"name": "f", "x": 1}}, "function_call.x"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tools(**fields)
    assert caught.value.param == param


def test_a_conversation_keeps_its_calls_together() -> None:
    call = {"name": "weather", "arguments": "{}"}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "function_call": call},
        {"role": "function", "name": "weather", "content": "sun"},
        {"role": "function", "name": "other", "content": "?"},
        "no message",
    ]
    out = tools(functions=[WEATHER], messages=turns)["messages"]
    assert out == [
        turns[0],
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_other", "content": "?"},
        "no message",
    ]


def test_a_whole_answer_goes_back() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call], "function_call": None}
    answer = back(id="1", choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "function_call": call["function"]},
        "finish_reason": "function_call",
    }


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (
            {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]},
            {"function_call": {"name": "f", "arguments": ""}},
        ),
        (
            {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
            {"function_call": {"arguments": "{"}},
        ),
        ({"tool_calls": [{"index": 1, "function": {"name": "second"}}]}, {}),
        ({"tool_calls": [{"index": 0}]}, {}),
        ({"content": "hi", "tool_calls": []}, {"content": "hi"}),
        ({"tool_calls": ["nonsense"]}, {}),
        ({"tool_calls": {"index": 0}}, {}),
        ({"content": "hi"}, {"content": "hi"}),
    ],
)
def test_chunks_go_back(delta: dict[str, Any], expected: dict[str, Any]) -> None:
    choice = back(choices=[{"index": 0, "delta": delta, "finish_reason": None}])["choices"][0]
    assert choice == {"index": 0, "delta": expected, "finish_reason": None}


def test_what_has_no_choices_stays() -> None:
    assert back(choices=[], usage={"a": 1}) == {"choices": [], "usage": {"a": 1}}
    assert back(choices=None) == {"choices": None}
    assert functions.answer_back(b"[1]") == b"[1]"


def test_what_cannot_be_decoded_is_the_upstreams_fault() -> None:
    with pytest.raises(UpstreamProtocol):
        functions.answer_back(b'{"choices":[],"x":1e999}')


@pytest.mark.parametrize(
    "choices", [[[]], [1], [None], ["a"], [{}, []], 7, "a", True, {"a": 1}, [[{"delta": {}}]]]
)
def test_choices_that_are_none_are_the_upstreams_fault(choices: Any) -> None:
    with pytest.raises(UpstreamProtocol):
        back(choices=choices)


MEMBERS = "choices message delta tool_calls function index name finish_reason arguments".split()
things = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("tool_calls"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(things | st.fixed_dictionaries({"choices": st.lists(things, max_size=2)}))
def test_whatever_comes_back_is_an_answer_or_the_upstreams_fault(thing: Any) -> None:
    with suppress(UpstreamProtocol):
        json.loads(functions.answer_back(json.dumps(thing).encode()))


@given(st.binary(max_size=40))
def test_bytes_that_are_nothing_are_the_upstreams_fault(payload: bytes) -> None:
    with suppress(UpstreamProtocol):
        functions.answer_back(b'{"choices":[{"delta":{"content":"' + payload + b'"}}]}')
