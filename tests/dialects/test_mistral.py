"""What goes out to Mistral, rule by rule; each body is valid for its own SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistralai.client.models import ChatCompletionRequest, EmbeddingRequest

from server.dialects.mistral import Mistral
from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from tests.dialects.replay import HELLO, sent

DIALECT = Mistral()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def checked(body: dict[str, Any], kind: Any = ChatCompletionRequest) -> dict[str, Any]:
    """The SDK's request type takes this body, and knows every member of it."""
    known = kind.model_validate(body).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert subset(body, known), (body, known)
    return body


def subset(value: Any, of: Any) -> bool:
    if isinstance(value, dict) and isinstance(of, dict):
        return all(name in of and subset(item, of[name]) for name, item in value.items())
    if isinstance(value, list) and isinstance(of, list):
        return len(value) == len(of) and all(map(subset, value, of))
    return bool(value == of)


def out(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    return checked(json.loads(sent(DIALECT, body, **how).body))


# --- request out

BARE = {"model": "theirs", "stream": False, "messages": HELLO}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}
NAMED = {"type": "function", "function": {"name": "f"}}
LONG = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        ({}, {}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"seed": 5}, {"random_seed": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
        ({"temperature": None}, {}),
        ({"n": 2, "stop": ["a"]}, {"n": 2, "stop": ["a"]}),
        ({"n": 1, "stop": []}, {}),
        ({"presence_penalty": -1}, {"presence_penalty": -1}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"top_k": -1}, {}),
        ({"tools": []}, {}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOOL], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [TOOL], "tool_choice": "any"}),
        ({"tools": [TOOL], "tool_choice": NAMED}, {"tools": [TOOL], "tool_choice": NAMED}),
        (
            {"tools": [NAMED], "parallel_tool_calls": False},
            {
                "tools": [
                    {
                        **NAMED,
                        "function": {
                            "name": "f",
                            "parameters": {"type": "object", "properties": {}},
                        },
                    }
                ],
                "parallel_tool_calls": False,
            },
        ),
        ({"response_format": LONG}, {"response_format": LONG}),
        ({"response_format": {"type": "text"}}, {}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"service_tier": "default"}, {}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
        ({"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
        ({"safe_prompt": True}, {"safe_prompt": True}),
        (
            {"prediction": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
            {"prediction": {"type": "content", "content": "a"}},
        ),
    ],
)
def test_parameters(said: dict[str, Any], sent_so: dict[str, Any]) -> None:
    assert out(said) == {**BARE, **sent_so}
    outgoing = sent(DIALECT, said)
    assert (outgoing.path, outgoing.dropped) == ("/chat/completions", ())


@pytest.mark.parametrize(
    ("said", "drop", "dropped"),
    [
        (
            {"user": "u", "store": True, "safety_identifier": "s"},
            (),
            ("user", "store", "safety_identifier"),
        ),
        ({"logit_bias": {"1": 2}}, ("logit_bias",), ("logit_bias",)),
        ({"temperature": 1}, ("temperature",), ("temperature",)),
        ({"user": None, "store": False, "logit_bias": {}}, (), ()),
    ],
)
def test_what_is_let_go_is_named(said: Any, drop: Any, dropped: Any) -> None:
    assert out(said, drop=drop) == BARE
    assert sent(DIALECT, said, drop=drop).dropped == dropped


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"min_p": 0.5}, "min_p"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"something_new": 1}, "something_new"),
        ({"messages": None}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "tool", "tool_call_id": 1}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
            "messages[0].content[0].file",
        ),
    ],
)
def test_what_mistral_cannot_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, said)
    assert caught.value.param == param


def test_completions_are_none_of_mistral() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"prompt": "a"}, surface=Surface.COMPLETIONS)
    assert caught.value.code == "unsupported_endpoint"


def test_embeddings() -> None:
    said = {"input": ["a"], "dimensions": 8, "encoding_format": "base64", "user": "u"}
    outgoing = sent(DIALECT, said, surface=Surface.EMBEDDINGS)
    assert checked(json.loads(outgoing.body), EmbeddingRequest) == {
        "model": "theirs",
        "input": ["a"],
        "output_dimension": 8,
        "encoding_format": "base64",
    }
    assert (outgoing.path, outgoing.dropped) == ("/embeddings", ("user",))


CALL = {"id": "abcDEF123", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        ({"role": "developer", "content": "a"}, {"role": "system", "content": "a"}),
        (
            {"role": "assistant", "content": None, "refusal": "no", "annotations": []},
            {"role": "assistant", "content": "no"},
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        (
            {"role": "tool", "tool_call_id": "abcDEF123", "content": "a", "name": "f"},
            {"role": "tool", "tool_call_id": "abcDEF123", "content": "a", "name": "f"},
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "https://e.com/a"}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
                    {"type": "file", "file": {"file_data": "data:x;base64,A", "filename": "a"}},
                    {"type": "file", "file": {"file_data": "AA=="}},
                    {"type": "file", "file": {"file_id": "f1"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "https://e.com/a"}},
                    {"type": "input_audio", "input_audio": "AA=="},
                    {
                        "type": "document_url",
                        "document_url": "data:x;base64,A",
                        "document_name": "a",
                    },
                    {"type": "document_url", "document_url": "data:application/pdf;base64,AA=="},
                    {"type": "file", "file_id": "f1"},
                ],
            },
        ),
    ],
)
def test_messages(said: dict[str, Any], sent_so: dict[str, Any]) -> None:
    assert out({"messages": [said]})["messages"] == [sent_so]
    assert sent(DIALECT, {"messages": [said]}).dropped == ()


def test_members_that_would_be_refused_are_let_go_by_name() -> None:
    said = [
        {"role": "user", "content": "a", "name": "bob"},
        {"role": "assistant", "content": "a", "reasoning_content": "t"},
        {"role": "assistant", "content": "a", "reasoning_details": [{"index": 0}]},
    ]
    assert out({"messages": said})["messages"][1] == {"role": "assistant", "content": "a"}
    assert sent(DIALECT, {"messages": said}).dropped == (
        "messages.name",
        "messages.reasoning_content",
        "messages.reasoning_details",
    )


@pytest.mark.parametrize(
    ("model", "more"),
    [("magistral-small", {}), ("theirs", {"reasoning_effort": "high"})],
)
def test_a_model_that_thinks_gets_its_thoughts_back(model: str, more: dict[str, Any]) -> None:
    said = [{"role": "assistant", "content": "a", "reasoning_content": "t"}]
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "t"}], "closed": True}
    assert out({"messages": said, **more}, model=model)["messages"] == [
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "a"}]}
    ]
    assert sent(DIALECT, {"messages": said, **more}, model=model).dropped == ()


@given(st.lists(st.text(min_size=1, max_size=40), min_size=2, max_size=6, unique=True))
def test_ids_are_of_mistrals_form_and_still_meet(ids: list[str]) -> None:
    said = [
        {"role": "assistant", "tool_calls": [{**CALL, "id": one} for one in ids]},
        *({"role": "tool", "tool_call_id": one, "content": ""} for one in ids),
    ]
    made = out({"messages": said})["messages"]
    calls = [call["id"] for call in made[0]["tool_calls"]]
    assert [message["tool_call_id"] for message in made[1:]] == calls
    assert len(set(calls)) == len(ids)
    assert all(len(one) == 9 and one.isalnum() and one.isascii() for one in calls)
