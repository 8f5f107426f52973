"""A body's parameters, row by row. Each body that goes out is one for the official SDK's types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.openai import ENGINE_ONLY
from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from tests.dialects.anthropic.helpers import HELLO, MODEL, SETTINGS, out, sent

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
THEIR_TOOL = {"name": "weather", "input_schema": SCHEMA}
#: What goes out whatever is asked.
BARE = {
    "model": MODEL,
    "max_tokens": SETTINGS["max_tokens"],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
}


def format_of(**about: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, **about}}


ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {}),
    ("the longest answer", {"max_tokens": 9}, {"max_tokens": 9}),
    ("its newer name", {"max_completion_tokens": 8}, {"max_tokens": 8}),
    ("the smaller one", {"max_completion_tokens": 9, "max_tokens": 8.0}, {"max_tokens": 8}),
    ("a stream", {"stream": True}, {"stream": True}),
    ("its usage", {"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    ("no padding", {"stream_options": {"include_obfuscation": False, "x": None}}, {}),
    ("temperature", {"temperature": 0.5}, {"temperature": 0.5}),
    ("too hot", {"temperature": 1.5}, {"temperature": 1}),
    ("top_p", {"top_p": 0.9}, {"top_p": 0.9}),
    ("top_k", {"top_k": 40}, {"top_k": 40}),
    ("all of them", {"top_k": -1}, {}),
    ("one stop", {"stop": "END"}, {"stop_sequences": ["END"]}),
    ("blank stops", {"stop": ["\n", "END", " "]}, {"stop_sequences": ["END"]}),
    ("only blank ones", {"stop": "\n"}, {}),
    ("tools", {"tools": [TOOL]}, {"tools": [THEIR_TOOL]}),
    ("no tools", {"tools": [], "tool_choice": "none"}, {}),
    (
        "a tool in full",
        {
            "tools": [
                {
                    "type": "function",
                    "function": {**TOOL["function"], "description": "d", "strict": True},  # type: ignore[dict-item]
                    "cache_control": {"type": "ephemeral"},
                }
            ]
        },
        {
            "tools": [
                {
                    **THEIR_TOOL,
                    "description": "d",
                    "strict": True,
                    "cache_control": {"type": "ephemeral"},
                }
            ]
        },
    ),
    (
        "a tool without parameters",
        {"tools": [{"type": "function", "function": {"name": "now", "strict": None}}]},
        {"tools": [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]},
    ),
    (
        "a schema without a type",
        {"tools": [{"function": {"name": "f", "parameters": {"properties": {"a": {}}}}}]},
        {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {}}}}]},
    ),
    *(
        (
            f"choice {said}",
            {"tools": [TOOL], "tool_choice": said, "parallel_tool_calls": parallel},
            {"tools": [THEIR_TOOL], "tool_choice": told},
        )
        for said, parallel, told in (
            ("auto", None, {"type": "auto"}),
            ("none", None, {"type": "none"}),
            ("required", True, {"type": "any"}),
            (
                {"type": "function", "function": {"name": "weather"}},
                None,
                {"type": "tool", "name": "weather"},
            ),
            (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
            ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
            (
                {"type": "function", "function": {"name": "weather"}},
                False,
                {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            ),
            ("none", False, {"type": "none"}),
        )
    ),
    ("one by one, of none", {"parallel_tool_calls": False}, {}),
    ("text", {"response_format": {"type": "text"}}, {}),
    (
        "a schema",
        {"response_format": format_of(strict=True)},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    (
        "a described schema",
        {"response_format": format_of(description="d")},
        {
            "output_config": {
                "format": {"type": "json_schema", "schema": {**SCHEMA, "description": "d"}}
            }
        },
    ),
    (
        "a schema that describes itself",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {**SCHEMA, "description": "own"}, "description": "d"},
            }
        },
        {
            "output_config": {
                "format": {"type": "json_schema", "schema": {**SCHEMA, "description": "own"}}
            }
        },
    ),
    ("a user", {"user": "u"}, {"metadata": {"user_id": "u"}}),
    (
        "a user by both names",
        {"user": "u", "safety_identifier": "u"},
        {"metadata": {"user_id": "u"}},
    ),
    ("the newer name", {"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
    ("any tier", {"service_tier": "auto"}, {}),
    ("the plain tier", {"service_tier": "default"}, {"service_tier": "standard_only"}),
    (
        "their own words",
        {"thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"}},
        {"thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"}},
    ),
    *(
        (f"{name} as it is anyway", {name: value}, {})
        for name, value in (
            ("n", 1),
            ("logprobs", False),
            ("top_logprobs", 0),
            ("frequency_penalty", 0),
            ("presence_penalty", 0.0),
            ("repetition_penalty", 1.0),
            ("logit_bias", {}),
            ("store", False),
            ("metadata", {}),
            ("modalities", ["text"]),
            ("verbosity", "medium"),
            ("seed", None),
            ("min_p", 0),
        )
    ),
]


@pytest.mark.parametrize(("body", "told"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_what_goes_out(body: dict[str, Any], told: dict[str, Any]) -> None:
    assert out(body) == {**BARE, **told}


#: Parameters without a counterpart, each with a value that asks for something.
LACKING: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "frequency_penalty": 0.1,
    "guided_json": {},
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "min_p": 0.1,
    "min_tokens": 4,
    "modalities": ["text", "audio"],
    "n": 2,
    "presence_penalty": -1,
    "reasoning": {"effort": "low"},
    "repetition_penalty": 1.1,
    "seed": 7,
    "top_logprobs": 2,
    "verbosity": "low",
    "web_search_options": {},
    "what_is_this": 1,
}
#: Those that have one, with a value that has none.
UNSAID: list[tuple[str, Any]] = [
    ("response_format", {"type": "json_object"}),
    ("response_format", {"type": "grammar"}),
    ("service_tier", "flex"),
]


@pytest.mark.parametrize(("name", "value"), [*LACKING.items(), *UNSAID])
def test_what_is_lacking_is_refused_or_dropped_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent({name: value})
    assert refused.value.param == name
    outgoing = sent({name: value}, drop=[name])
    assert outgoing.dropped == (name,)
    assert json.loads(outgoing.body) == BARE


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_later_version_has_no_sampling(name: str) -> None:
    later = "2026-10-21"
    for value in (0.5, 1):  # even the default
        with pytest.raises(InvalidRequest) as refused:
            sent({name: value}, version=later)
        assert refused.value.param == name
    outgoing = sent({name: 1}, version=later, drop=[name])
    assert outgoing.dropped == (name,)
    assert json.loads(outgoing.body) == BARE
    assert outgoing.headers == {"anthropic-version": later}
    assert sent({name: 1}).headers == {"anthropic-version": "2023-06-01"}


THINKING: list[dict[str, Any]] = [
    {"reasoning_effort": "high"},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"thinking": {"type": "adaptive"}},
]


@pytest.mark.parametrize("more", THINKING)
@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("temperature", 0.5, False),
        ("temperature", 1, True),
        ("temperature", 1.5, True),  # which is brought to 1
        ("top_p", 0.9, False),
        ("top_p", 0.95, True),
        ("top_p", 1, True),
        ("top_k", 5, False),
        ("top_k", -1, True),
    ],
)
def test_sampling_while_it_thinks(more: Any, name: str, value: float, taken: bool) -> None:
    """Anthropic refuses it; here the operator's own default can be left out."""
    if taken:
        sent({name: value, **more})
    else:
        with pytest.raises(InvalidRequest) as refused:
            sent({name: value, **more})
        assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
        assert sent({name: value, **more}, drop=[name]).dropped == (name,)
    still: dict[str, Any]
    for still in ({}, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}):
        assert sent({name: value, **still}).dropped == ()


def test_what_is_brought_into_range_is_named() -> None:
    body = {"temperature": 2, "stop": ["\n"], "reasoning_effort": "minimal"}
    assert sent(body).lowered == ("temperature", "stop", "reasoning_effort")
    assert sent({"temperature": 1, "stop": ["a"], "reasoning_effort": "low"}).lowered == ()


def test_what_advises_is_let_go_by_name() -> None:
    body = {
        "metadata": {"a": "b"},
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "store": True,
        "stream_options": {"continuous_usage_stats": True, "include_usage": True},
    }
    outgoing = sent(body)
    named = body.keys() - {"stream_options"} | {"stream_options.continuous_usage_stats"}
    assert set(outgoing.dropped) == named
    assert json.loads(outgoing.body) == BARE
    outgoing = sent({"user": "u", "safety_identifier": "s"})
    assert outgoing.dropped == ("user",)
    assert json.loads(outgoing.body)["metadata"] == {"user_id": "s"}


@pytest.mark.parametrize("name", sorted(ENGINE_ONLY))
def test_what_only_engines_have_is_dropped_by_name(name: str) -> None:
    outgoing = sent({name: "x"})
    assert outgoing.dropped == (name,)
    assert json.loads(outgoing.body) == BARE


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -1, "max_tokens": 9}, "max_completion_tokens"),
    ({"max_completion_tokens": 9.5}, "max_completion_tokens"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"stream_options": 7}, "stream_options"),
    ({"max_completion_tokens": "9"}, "max_completion_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": True}, "top_p"),
    ({"stop": 1}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"tools": {}}, "tools"),
    ({"tools": ["x"]}, "tools[0]"),
    ({"tools": [TOOL, {"type": "custom", "custom": {}}]}, "tools[1]"),
    (
        {"tools": [{"function": {"name": "f", "parameters": []}}]},
        "tools[0].function.parameters",
    ),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ({"reasoning_effort": "hard"}, "reasoning_effort"),
    ({"thinking": True}, "thinking"),
    ({"user": 7}, "user"),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
def test_what_is_wrong_is_told_with_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent(body)
    assert refused.value.param == param


def test_a_longest_answer_has_to_come_from_somewhere() -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent({}, max_tokens=None)
    assert refused.value.param == "max_completion_tokens"
    assert refused.value.code == "missing_required_parameter"


def test_only_chats() -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent({}, surface=Surface.EMBEDDINGS)
    assert refused.value.code == "unsupported_endpoint"


def test_where_it_goes() -> None:
    assert sent({}).path == "/messages"


def test_the_messages_are_those_of_the_body() -> None:
    assert out({"messages": HELLO})["messages"] == BARE["messages"]
