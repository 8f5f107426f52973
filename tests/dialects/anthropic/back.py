"""The way back, for tests alone: Anthropic's request as OpenAI's, in one plain form.

Contents are lists of parts, arguments are JSON in one spelling, what has two names has its newer
one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}


def spelt(value: Any) -> str:
    """JSON in one spelling."""
    return json.dumps(value, sort_keys=True)


def back(body: Body) -> Body:
    """OpenAI's request that this is Anthropic's of."""
    found: Body = {"model": "m", "messages": list(_messages(body))}
    found["max_completion_tokens"] = body["max_tokens"]
    for name in ("temperature", "top_p", "top_k", "stream"):
        if name in body:
            found[name] = body[name]
    if "stop_sequences" in body:
        found["stop"] = body["stop_sequences"]
    if "metadata" in body:
        found["safety_identifier"] = body["metadata"]["user_id"]
    if body.get("service_tier") == "standard_only":
        found["service_tier"] = "default"
    config = body.get("output_config", {})
    if "format" in config:
        found["response_format"] = {
            "type": "json_schema",
            "json_schema": {"schema": config["format"]["schema"]},
        }
    if "effort" in config:
        assert body["thinking"] == {"type": "adaptive"}
        found["reasoning_effort"] = config["effort"]
    elif "thinking" in body:
        assert body["thinking"] == {"type": "disabled"}
        found["reasoning_effort"] = "none"
    _tools(found, body)
    return found


def _tools(found: Body, body: Body) -> None:
    if "tools" in body:
        found["tools"] = [
            {
                "type": "function",
                "function": {
                    ("parameters" if name == "input_schema" else name): value
                    for name, value in tool.items()
                },
            }
            for tool in body["tools"]
        ]
    if (choice := body.get("tool_choice")) is not None:
        found["tool_choice"] = (
            {"type": "function", "function": {"name": choice["name"]}}
            if choice["type"] == "tool"
            else _CHOICES[choice["type"]]
        )
        if choice.get("disable_parallel_tool_use"):
            found["parallel_tool_calls"] = False


def _messages(body: Body) -> Iterator[Body]:
    if "system" in body:
        yield {"role": "system", "content": [_part(block) for block in body["system"]]}
    for turn in body["messages"]:
        yield from _asked(turn) if turn["role"] == "user" else _answered(turn)


def _asked(turn: Body) -> Iterator[Body]:
    blocks = turn["content"]
    results = [block for block in blocks if block["type"] == "tool_result"]
    assert blocks[: len(results)] == results, "results come first"
    for block in results:
        content = block.get("content", [])
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        yield {
            "role": "tool",
            "tool_call_id": block["tool_use_id"],
            "content": [_part(part) for part in parts],
        }
    if rest := [_part(block) for block in blocks[len(results) :]]:
        yield {"role": "user", "content": rest}


def _answered(turn: Body) -> Iterator[Body]:
    order = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
    places = [order[block["type"]] for block in turn["content"]]
    assert places == sorted(places), "thinking, text, calls"
    details, parts, calls = [], [], []
    for block in turn["content"]:
        if block["type"] == "text":
            parts.append(_part(block))
        elif block["type"] == "tool_use":
            function = {"name": block["name"], "arguments": spelt(block["input"])}
            calls.append({"id": block["id"], "type": "function", "function": function})
        else:
            details.append(block)
    message: Body = {"role": "assistant", "content": parts}
    if details:
        message["reasoning_details"] = details
    if calls:
        message["tool_calls"] = calls
    yield message


def _part(block: Body) -> Body:
    if block["type"] == "text":
        return block
    source = block["source"]
    if source["type"] == "url":
        return {"type": "image_url", "image_url": {"url": source["url"]}}
    url = f"data:{source['media_type']};base64,{source['data']}"
    if block["type"] == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    named = {"filename": block["title"]} if "title" in block else {}
    return {"type": "file", "file": {"file_data": url, **named}}
