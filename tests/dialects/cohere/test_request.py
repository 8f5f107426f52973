"""What goes out to Cohere, row by row of the table; each body is valid for its own SDK."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from tests.dialects.cohere.theirs import DIALECT, out
from tests.dialects.replay import HELLO, request_of, sent

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


BARE = {"model": "theirs", "stream": False, "messages": HELLO}


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        ({}, {}),
        ({"stream": True}, {"stream": True}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": None, "tools": None, "user": None}, {}),
        ({"top_p": 0.5}, {"p": 0.5}),
        ({"top_k": 40}, {"k": 40}),
        ({"top_k": -1}, {"k": 0}),
        ({"top_k": 8.0}, {"k": 8}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"presence_penalty": 1}, {"presence_penalty": 1}),
        ({"seed": 7}, {"seed": 7}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 5}),
        ({"stop": "a"}, {"stop_sequences": ["a"]}),
        ({"stop": list("abcde")}, {"stop_sequences": list("abcde")}),
        ({"stop": []}, {}),
        ({"logprobs": True}, {"logprobs": True}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"n": 1, "logit_bias": {}, "parallel_tool_calls": True}, {}),
        ({"tools": []}, {}),
        ({"tool_choice": "auto"}, {}),
        ({"tools": [tool()]}, {"tools": [tool()]}),
        ({"tools": [tool()], "parallel_tool_calls": True}, {"tools": [tool()]}),
        ({"tools": [tool()], "tool_choice": "auto"}, {"tools": [tool()]}),
        ({"tools": [tool()], "tool_choice": "none"}, {"tools": [tool()], "tool_choice": "NONE"}),
        (
            {"tools": [tool()], "tool_choice": "required"},
            {"tools": [tool()], "tool_choice": "REQUIRED"},
        ),
        (
            {"tools": [tool("f"), tool("g")], "tool_choice": named("g")},
            {"tools": [tool("g")], "tool_choice": "REQUIRED"},
        ),
        (
            {
                "tools": [tool("f"), tool("g"), tool("h")],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [named("g"), named("h")]},
                },
            },
            {"tools": [tool("g"), tool("h")]},
        ),
        (
            {"tools": [tool(strict=True), tool("g", strict=True)]},
            {"tools": [tool(), tool("g")], "strict_tools": True},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {"type": "object", "properties": {}},
                        },
                    }
                ]
            },
        ),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            {"response_format": {"type": "json_object", "json_schema": SCHEMA}},
        ),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (
            {"reasoning_effort": "low"},
            {"thinking": {"type": "enabled", "token_budget": 1024}},
        ),
        (
            {"reasoning_effort": "low", "max_tokens": 400},
            {"thinking": {"type": "enabled", "token_budget": 300}, "max_tokens": 400},
        ),
        ({"reasoning_effort": "max"}, {"thinking": {"type": "enabled"}}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 99}},
            {"thinking": {"type": "enabled", "token_budget": 99}},
        ),
        (
            {"documents": ["a", {"id": "d", "data": {"text": "b"}}], "safety_mode": "STRICT"},
            {"documents": ["a", {"id": "d", "data": {"text": "b"}}], "safety_mode": "STRICT"},
        ),
        ({"citation_options": {"mode": "FAST"}}, {"citation_options": {"mode": "FAST"}}),
    ],
)
def test_parameters(said: dict[str, Any], sent_so: dict[str, Any]) -> None:
    assert out(said) == {**BARE, **sent_so}
    outgoing = sent(DIALECT, said)
    assert (outgoing.path, outgoing.dropped, outgoing.lowered) == ("/chat", (), ())


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        ({"top_p": 1}, {"p": 0.99}),
        ({"top_p": 0}, {"p": 0.01}),
        ({"top_k": 1000}, {"k": 500}),
        ({"frequency_penalty": 1.5}, {"frequency_penalty": 1}),
        ({"presence_penalty": -0.5}, {"presence_penalty": 0}),
    ],
)
def test_what_is_out_of_range_is_brought_in_and_named(
    said: dict[str, Any], sent_so: dict[str, Any]
) -> None:
    assert out(said) == {**BARE, **sent_so}
    assert sent(DIALECT, said).lowered == tuple(said)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"top_logprobs": 2, "logprobs": True}, "top_logprobs"),
        ({"parallel_tool_calls": False, "tools": [tool()]}, "parallel_tool_calls"),
        ({"stop": list("abcdef")}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "any", "tools": [tool()]}, "tool_choice"),
        ({"tool_choice": named("g"), "tools": [tool()]}, "tool_choice"),
        ({"tool_choice": {"type": "custom"}, "tools": [tool()]}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0]"),
        ({"tools": [named("f"), {}]}, "tools[1]"),
        ({"tools": {}}, "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": 1}}]},
            "tools[0].function.name",
        ),
        ({"tools": [tool(parameters=1)]}, "tools[0].function.parameters"),
        ({"response_format": {"type": "json_object"}, "tools": [tool()]}, "response_format"),
        ({"response_format": {"type": "json_object"}, "documents": ["a"]}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "token_budget": 0}}, "thinking.token_budget"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"min_p": 0.1}, "min_p"),
        ({"p": 0.1}, "p"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"seed": 1.5}, "seed"),
        ({"something_new": 1}, "something_new"),
        ({"messages": "hello"}, "messages"),
        ({"messages": None}, "messages"),
    ],
)
def test_what_cohere_cannot_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, said)
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("said", "drop", "dropped"),
    [
        ({"n": 2, "logit_bias": {"5": 1}}, ("n", "logit_bias"), ("n", "logit_bias")),
        ({"temperature": 0.5}, ("temperature",), ("temperature",)),
        ({"parallel_tool_calls": False, "tools": [tool()]}, ("parallel_tool_calls",), None),
        ({"something_new": 1}, ("something_new",), ("something_new",)),
        (
            {"user": "u", "store": True, "metadata": {"a": "b"}, "prompt_cache_key": "k"},
            (),
            ("user", "store", "metadata", "prompt_cache_key"),
        ),
        ({"store": False, "metadata": {}, "user": None}, (), ()),
        ({"cache_salt": "s", "priority": 3}, (), ("cache_salt", "priority")),
        ({"tools": [tool(strict=True), tool("g")]}, (), ("tools.strict",)),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "low"}, (), ("reasoning_effort",)),
    ],
)
def test_what_is_let_go_is_named(
    said: dict[str, Any], drop: tuple[str, ...], dropped: tuple[str, ...] | None
) -> None:
    body = out(said, drop=drop)
    assert not {"n", "logit_bias", "user", "store", "temperature"} & body.keys()
    assert sent(DIALECT, said, drop=drop).dropped == (drop if dropped is None else dropped)


def test_no_drop_takes_what_a_request_needs() -> None:
    assert out({}, drop=("messages", "model", "stream")) == BARE


@pytest.mark.parametrize("surface", [Surface.COMPLETIONS, Surface.TOKENIZE, Surface.DETOKENIZE])
def test_other_surfaces_are_none_of_cohere(surface: Surface) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"prompt": "a"}, surface=surface)
    assert caught.value.code == "unsupported_endpoint"


def test_half_a_character_cannot_be_sent_on() -> None:
    request = request_of({"model": "m", "messages": HELLO, "stop": "a"})
    request.members["stop"] = Raw(b'"\\ud800"')
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.request_out(
            request, model="m", members=request.members, drop=frozenset(), settings={}
        )
    assert (caught.value.param, caught.value.code) == ("stop", "invalid_json")
