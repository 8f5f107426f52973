"""Messages on their way to Cohere; each body is valid for its own SDK."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest
from tests.dialects.cohere.theirs import DIALECT, out
from tests.dialects.replay import sent

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
DOCUMENT = {"type": "document", "document": {"id": "d", "data": {"a": 1}}}
TEXTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        (
            [
                {"role": "user", "content": "hi"},
                {"role": "developer", "content": "a"},
                {"role": "system", "content": TEXTS},
            ],
            [{"role": "system", "content": "a\na\nb"}, {"role": "user", "content": "hi"}],
        ),
        ([{"role": "system", "content": TEXTS}], [{"role": "system", "content": TEXTS}]),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "https://e.com"}]}],
            [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://e.com"}}],
                }
            ],
        ),
        (
            [{"role": "user", "content": [*TEXTS, IMAGE]}],
            [{"role": "user", "content": [*TEXTS, IMAGE]}],
        ),
        (
            [{"role": "assistant", "content": "a", "refusal": None, "annotations": []}],
            [{"role": "assistant", "content": "a"}],
        ),
        (
            [{"role": "assistant", "content": None, "refusal": "no"}],
            [{"role": "assistant", "content": "no"}],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [{"role": "assistant", "content": [{"type": "text", "text": "no"}]}],
        ),
        (
            [{"role": "assistant", "content": "a", "reasoning_content": "t"}],
            [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t"},
                        {"type": "text", "text": "a"},
                    ],
                }
            ],
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "p",
                    "tool_calls": [CALL],
                }
            ],
            [{"role": "assistant", "tool_calls": [CALL], "tool_plan": "p"}],
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": "tp",
                    "tool_plan": "p",
                    "tool_calls": [CALL],
                }
            ],
            [
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "t"}],
                    "tool_calls": [CALL],
                    "tool_plan": "p",
                }
            ],
        ),
        (
            [{"role": "assistant", "content": "a", "citations": [{"start": 0, "end": 1}]}],
            [{"role": "assistant", "content": "a", "citations": [{"start": 0, "end": 1}]}],
        ),
        (
            [{"role": "tool", "tool_call_id": "c1", "content": [*TEXTS, DOCUMENT]}],
            [{"role": "tool", "tool_call_id": "c1", "content": [*TEXTS, DOCUMENT]}],
        ),
    ],
)
def test_messages(said: list[Any], sent_so: list[Any]) -> None:
    assert out({"messages": said})["messages"] == sent_so
    assert sent(DIALECT, {"messages": said}).dropped == ()


def test_arguments_are_never_empty() -> None:
    empty = {**CALL, "function": {"name": "f", "arguments": ""}}
    (message,) = out({"messages": [{"role": "assistant", "tool_calls": [empty]}]})["messages"]
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_names_and_the_like_are_let_go_by_name() -> None:
    said = [
        {"role": "user", "content": "a", "name": "bob"},
        {"role": "assistant", "content": "a", "audio": {"id": "x"}, "name": None},
        {"role": "assistant", "content": "a", "tool_plan": "p"},
    ]
    found = sent(DIALECT, {"messages": said}).dropped
    assert found == ("messages.name", "messages.audio", "messages.tool_plan")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (1, "messages[0]"),
        ({"role": "robot"}, "messages[0].role"),
        ({"content": "a"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": [1]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"role": "user", "content": [DOCUMENT]}, "messages[0].content[0]"),
        ({"role": "tool", "content": "a"}, "messages[0].tool_call_id"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": 1}]},
            "messages[0].content[0].image_url",
        ),
        ({"role": "assistant", "content": 1}, "messages[0].content"),
        ({"role": "assistant", "content": "a", "tool_plan": 1}, "messages[0].tool_plan"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {}}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": 1}}],
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "messages[0].tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "id": None}]},
            "messages[0].tool_calls[0].id",
        ),
        ({"role": "assistant", "reasoning_content": 1}, "messages[0].reasoning_content"),
    ],
)
def test_messages_that_cohere_cannot_take(message: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"messages": [message]})
    assert caught.value.param == param
