"""Any conversation: what goes out to Cohere means what came in, but for the losses in `LOSSES`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.cohere.theirs import DIALECT, back, checked
from tests.dialects.replay import sent

#: Everything that a conversation may lose or change on its way, by name:
LOSSES = {
    "roles": "`developer` becomes `system`",
    "places": "what the system says comes first, as one message, a line to each",
    "refusals": "a model's refusal becomes its content",
    "plans": "thoughts before calls of tools become the plan of the calls",
    "arguments": "no arguments become an empty object",
    "empty": "an empty content beside calls or thoughts goes",
}
#: And what is let go and named in `dropped`.
NAMED = {
    "messages.name": lambda message: message.get("name"),
    # What the model had said until it refused stands.
    "messages.refusal": lambda message: message.get("refusal") and message["content"],
}

texts = st.text(max_size=12)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
text_parts = st.builds(lambda text: {"type": "text", "text": text}, texts)
image_parts = st.builds(
    lambda url, detail: {
        "type": "image_url",
        "image_url": {"url": f"https://example.com/{url}", **detail},
    },
    words,
    st.sampled_from([{}, {"detail": "low"}, {"detail": "auto"}]),
)
calls = st.builds(
    lambda identity, name, arguments: {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    words,
    words,
    st.sampled_from(["", "{}", '{"a": 1}', '{"é": ["\\n"]}']),
)
names = st.sampled_from([{}, {"name": "bob"}])
systems = st.builds(
    lambda role, content, name: {"role": role, "content": content, **name},
    st.sampled_from(["system", "developer"]),
    texts | st.lists(text_parts, min_size=1, max_size=3),
    names,
)
users = st.builds(
    lambda content, name: {"role": "user", "content": content, **name},
    texts | st.lists(text_parts | image_parts, max_size=3),
    names,
)
assistants = st.builds(
    lambda content, more: {"role": "assistant", "content": content, **more},
    st.none() | texts | st.lists(text_parts, min_size=1, max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "tool_calls": st.lists(calls, min_size=1, max_size=2),
            "reasoning_content": texts,
            "refusal": texts,
        },
    ),
)
tools = st.builds(
    lambda identity, content: {"role": "tool", "tool_call_id": identity, "content": content},
    words,
    texts | st.lists(text_parts, max_size=2),
)
conversations = st.lists(systems | users | assistants | tools, max_size=8)


def normalise(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation after the losses."""
    said = [m["content"] for m in messages if m["role"] in ("system", "developer")]
    out: list[dict[str, Any]] = []
    if len(said) == 1:
        out.append({"role": "system", "content": said[0]})
    elif said:
        lines = [line for content in said for line in lines_of(content)]
        out.append({"role": "system", "content": "\n".join(lines)})
    for message in messages:
        if message["role"] in ("system", "developer"):
            continue
        one = {name: value for name, value in message.items() if name != "name"}
        if one["role"] == "assistant":
            one = normal_answer(one)
        out.append(one)
    return out


def lines_of(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return ["\n".join(part["text"] for part in content)]


def normal_answer(message: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "assistant"}
    content = message["content"] or message.get("refusal") or ""
    thought = message.get("reasoning_content") or ""
    found = message.get("tool_calls", [])
    if found:
        out["tool_calls"] = [
            {**c, "function": {**c["function"], "arguments": c["function"]["arguments"] or "{}"}}
            for c in found
        ]
    if thought:
        out["reasoning_content"] = thought
    if thought and not found:  # parts of its content, as it stands beside the thoughts
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        out["content"] = [part for part in parts if part["text"]]
    elif content or not found:
        out["content"] = content
    return out


@pytest.mark.no_cover
@settings(max_examples=400)
@given(conversations)
def test_there_and_back(messages: list[dict[str, Any]]) -> None:
    outgoing = sent(DIALECT, {"messages": messages})
    body = checked(outgoing)
    assert back(body["messages"]) == normalise(messages)
    assert set(outgoing.dropped) == {name for name in NAMED if any(map(NAMED[name], messages))}


@settings(max_examples=200)
@given(conversations)
def test_what_was_normal_stays_as_it_is(messages: list[dict[str, Any]]) -> None:
    once = back(json.loads(sent(DIALECT, {"messages": messages}).body)["messages"])
    assert back(json.loads(sent(DIALECT, {"messages": once}).body)["messages"]) == once
