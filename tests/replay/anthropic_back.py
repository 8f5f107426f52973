"""From Anthropic's recorded requests to OpenAI's words.

Much of what was recorded uses tools that run at Anthropic, files kept there and other things that
OpenAI's chat completions have no word for. `sayable` takes them out and names them; what is left
has a way back.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
#: What OpenAI's clients can say: members, blocks of each role, members of a tool.
_MEMBERS = frozenset(
    "cache_control max_tokens messages metadata model output_config stop_sequences stream system "
    "temperature thinking tool_choice tools top_k top_p".split()
)
_BLOCKS = {
    "assistant": frozenset({"redacted_thinking", "text", "thinking", "tool_use"}),
    "system": frozenset({"text"}),
    "user": frozenset({"document", "image", "text", "tool_result"}),
}
_IN_RESULTS = frozenset({"document", "image", "text"})
_OF_TOOLS = frozenset({"cache_control", "description", "input_schema", "name", "strict"})
_OF_OUTPUT = frozenset({"effort", "format"})
_OF_SOURCES = {"image": ("base64", "url"), "document": ("base64",)}
_PDF = "application/pdf"


def sayable(request: Body) -> tuple[Body, list[str]]:
    """The request without what OpenAI's API has no word for, and the names of that."""
    found, unsaid = copy.deepcopy(request), set(request) - _MEMBERS
    for name in unsaid:
        del found[name]
    if "tools" in found:
        found["tools"] = list(_own_tools(found["tools"], unsaid))
        if not found["tools"]:
            for name in ("tools", "tool_choice"):
                found.pop(name, None)
    config = found.get("output_config", {})
    for name in config.keys() - _OF_OUTPUT:
        unsaid.add(f"output_config.{name}")
        del config[name]
    if config.get("effort") and "thinking" not in found:
        found["thinking"] = {"type": "adaptive"}  # an effort of OpenAI's is one of thinking
    if config == {}:
        found.pop("output_config", None)
    _turns(found, unsaid)
    return found, sorted(unsaid)


def _own_tools(tools: list[Body], unsaid: set[str]) -> Iterator[Body]:
    """The client's own tools."""
    for tool in tools:
        if tool.get("type", "custom") != "custom":
            unsaid.add(f"tools.{tool['type']}")
            continue
        unsaid |= {f"tools.{name}" for name in tool.keys() - _OF_TOOLS}
        yield {name: value for name, value in tool.items() if name in _OF_TOOLS}


def _turns(found: Body, unsaid: set[str]) -> None:
    """Turns of what can be said; later instructions stand above all of them, in one block."""
    later, turns = [], []
    for turn in found["messages"]:
        blocks = _blocks(turn["content"])
        kept = [block for block in blocks if _has_word(block, _BLOCKS[turn["role"]], unsaid)]
        if turn["role"] == "system":
            unsaid.add("the place of a later system message")
            later += [block["text"] for block in kept]
        elif kept:
            for block in kept:
                _result(block, unsaid)
            turns.append({"role": turn["role"], "content": kept})
    if later:
        above = _blocks(found.get("system", []))
        found["system"] = [*above, {"type": "text", "text": "\n".join(later)}]
    found["messages"] = turns


def _result(block: Body, unsaid: set[str]) -> None:
    """What a tool said, as far as a tool's message can say it."""
    content = block.get("content")
    if isinstance(content, list):
        block["content"] = [part for part in content if _has_word(part, _IN_RESULTS, unsaid)]
    if block.get("is_error"):
        unsaid.add("tool_result.is_error")
        del block["is_error"]


def _has_word(block: Body, known: frozenset[str], unsaid: set[str]) -> bool:
    kind = block["type"]
    if kind not in known:
        unsaid.add(f"blocks.{kind}")
        return False
    source = block.get("source")
    if source is None:
        return True
    if source["type"] not in _OF_SOURCES[kind] or (
        kind == "document" and source["media_type"] != _PDF
    ):
        unsaid.add(f"blocks.{kind} from a {source['type']}")
        return False
    return True


# --- the way back


def back(request: Body) -> Body:
    """A chat completion's request that this is Anthropic's of."""
    found: Body = {"messages": list(_messages(request))}
    for name in ("cache_control", "model", "stream", "temperature", "thinking", "top_k", "top_p"):
        if name in request:
            found[name] = request[name]
    for theirs, ours in (("max_tokens", "max_completion_tokens"), ("stop_sequences", "stop")):
        if theirs in request:
            found[ours] = request[theirs]
    if "metadata" in request:
        found["user"] = request["metadata"]["user_id"]
    config = request.get("output_config", {})
    if "effort" in config:
        found["reasoning_effort"] = config["effort"]
    if "format" in config:
        named = {"name": "answer", "schema": config["format"]["schema"]}
        found["response_format"] = {"type": "json_schema", "json_schema": named}
    if "tools" in request:
        found["tools"] = [_tool(tool) for tool in request["tools"]]
    if (choice := request.get("tool_choice")) is not None:
        found["tool_choice"] = (
            {"type": "function", "function": {"name": choice["name"]}}
            if choice["type"] == "tool"
            else _CHOICES[choice["type"]]
        )
        if choice.get("disable_parallel_tool_use"):
            found["parallel_tool_calls"] = False
    return found


def _tool(tool: Body) -> Body:
    function = {
        ("parameters" if name == "input_schema" else name): value for name, value in tool.items()
    }
    return {"type": "function", "function": function}


def _messages(request: Body) -> Iterator[Body]:
    if (system := request.get("system")) is not None:
        yield {"role": "system", "content": system}
    for turn in request["messages"]:
        yield from (_asked if turn["role"] == "user" else _answered)(_blocks(turn["content"]))


def _asked(blocks: list[Body]) -> Iterator[Body]:
    rest = []
    for block in blocks:
        if block["type"] != "tool_result":
            rest.append(_part(block))
            continue
        content = block.get("content", "")
        yield {
            "role": "tool",
            "tool_call_id": block["tool_use_id"],
            "content": content if isinstance(content, str) else [_part(part) for part in content],
        }
    if rest:
        yield {"role": "user", "content": rest}


def _answered(blocks: list[Body]) -> Iterator[Body]:
    thoughts = [block for block in blocks if block["type"] in ("thinking", "redacted_thinking")]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    texts = [_part(block) for block in blocks if block["type"] == "text"]
    message: Body = {"role": "assistant", "content": texts or None}
    if thoughts:
        message["reasoning_content"] = "".join(block.get("thinking", "") for block in thoughts)
        message["reasoning_details"] = [{"index": i, **b} for i, b in enumerate(thoughts)]
    if calls:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["input"])},
            }
            for call in calls
        ]
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


# --- one spelling


def formed(body: Body) -> Body:
    """A request as it is to be compared: texts in blocks, nothing that is so anyway, and what users
    said after results in the turn of the results."""
    found = copy.deepcopy(body)
    if found.get("stream") is False:
        del found["stream"]
    if "system" in found:
        found["system"] = _blocks(found["system"])
    turns: list[Body] = []
    for turn in found["messages"]:
        blocks = [_spelt(block) for block in _blocks(turn["content"])]
        if turn["role"] == "user" and turns and turns[-1]["content"][0]["type"] == "tool_result":
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": turn["role"], "content": blocks})
    found["messages"] = turns
    return found


def _spelt(block: Body) -> Body:
    if block["type"] == "tool_result":
        if block.get("is_error") is False:
            del block["is_error"]
        if block.get("content") in ("", []):
            del block["content"]
    return block


def _blocks(content: str | list[Body]) -> list[Body]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
