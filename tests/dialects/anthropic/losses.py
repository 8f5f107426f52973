"""What a conversation loses on its way through Anthropic's API, each loss by name.

A loss is a function from a body to the same body without what is lost; `normalise` is all of them.
Some are no losses but other words for the same (`spelling`), and stand here because the way back
cannot know which words were used.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.dialects.anthropic.back import spelt

Body = dict[str, Any]
_KINDS = {
    "image/png": b"\x89PNG",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
    "application/pdf": b"%PDF",
}
THINKING = ("thinking", "redacted_thinking")


def normalise(body: Body, default: int) -> Body:
    """`default`: the longest answer where the body names none."""
    body = copy.deepcopy(body)
    if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = default
    for lose in LOSSES.values():
        lose(body)
    return body


def _null(body: Body) -> None:
    for name in [name for name, value in body.items() if value is None]:
        del body[name]
    for message in body["messages"]:
        for name in [name for name, value in message.items() if value is None]:
            del message[name]


def _advice(body: Body) -> None:
    for name in ("prompt_cache_key", "n", "logprobs", "stream_options"):
        body.pop(name, None)
    for message in body["messages"]:
        message.pop("name", None)
        message.pop("audio", None)
        message.pop("reasoning_content", None)
        for part in _parts(message):
            if part["type"] == "image_url":
                part["image_url"].pop("detail", None)


def _foreign_reasoning(body: Body) -> None:
    for message in body["messages"]:
        found = message.pop("reasoning_details", [])
        kept = [{k: v for k, v in d.items() if k != "index"} for d in found]
        if kept := [detail for detail in kept if detail["type"] in THINKING]:
            message["reasoning_details"] = kept


def _parts_of_texts(body: Body) -> None:
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = [{"type": "text", "text": content}]
        elif content is None:
            message["content"] = []


def _refusals_are_texts(body: Body) -> None:
    for message in body["messages"]:
        for part in message["content"]:
            if part["type"] == "refusal":
                part["type"] = "text"
                part["text"] = part.pop("refusal")
        if (refusal := message.pop("refusal", None)) is not None:
            message["content"].append({"type": "text", "text": refusal})


def _blank_texts(body: Body) -> None:
    for message in body["messages"]:
        # Alone in a tool's message a blank is what the tool said, and goes as it is.
        alone = message["role"] == "tool" and message.pop("was_text", False)
        message["content"] = [
            part
            for part in message["content"]
            if part["type"] != "text" or (part["text"] if alone else part["text"].strip())
        ]


def _texts_of_tools(body: Body) -> None:
    for message in body["messages"]:
        if message["role"] == "tool":
            message["was_text"] = isinstance(message["content"], str)


def _empty_answers(body: Body) -> None:
    for message in body["messages"]:
        if message.get("tool_calls") == []:
            del message["tool_calls"]
    body["messages"] = [
        message
        for message in body["messages"]
        if message["role"] != "assistant"
        or message["content"]
        or "tool_calls" in message
        or "reasoning_details" in message
    ]


def _places_of_instructions(body: Body) -> None:
    first: list[Body] = []
    late: list[str] = []
    rest: list[Body] = []
    for message in body["messages"]:
        if message["role"] not in ("system", "developer"):
            rest.append(message)
        elif rest:
            late += (part["text"] for part in message["content"])
        else:
            first += message["content"]
    if late:
        first.append({"type": "text", "text": "\n".join(late)})
    body["messages"] = rest
    if first:
        body["messages"] = [{"role": "system", "content": first}, *rest]


def _places_of_results(body: Body) -> None:
    """Results stand before what users said among and after them, which is one message then."""
    found: list[Body] = []
    for message in body["messages"]:
        waiting = found and found[-1].get("after_results")
        if message["role"] == "tool":
            found.insert(len(found) - 1 if waiting else len(found), message)
        elif message["role"] == "user" and waiting:
            found[-1]["content"] += message["content"]
        elif message["role"] == "user" and found and found[-1]["role"] == "tool":
            found.append({**message, "after_results": True})
        else:
            found.append(message)
    for message in found:
        message.pop("after_results", None)
    body["messages"] = found


def _ids(body: Body) -> None:
    for message in body["messages"]:
        for holder, name in [
            (message, "tool_call_id"),
            *((call, "id") for call in message.get("tool_calls", [])),
        ]:
            if name in holder and re.search(r"[^a-zA-Z0-9_-]", holder[name]):
                checksum = zlib.crc32(holder[name].encode())
                clean = re.sub(r"[^a-zA-Z0-9_-]", "_", holder[name])
                holder[name] = f"{clean}_{checksum:08x}"


def _spelling_of_arguments(body: Body) -> None:
    for message in body["messages"]:
        for call in message.get("tool_calls", []):
            function = call["function"]
            function["arguments"] = spelt(json.loads(function["arguments"] or "{}"))


def _declared_kinds(body: Body) -> None:
    for part in (part for message in body["messages"] for part in _parts(message)):
        if part["type"] == "text":
            continue
        holder, name = (
            (part["image_url"], "url")
            if part["type"] == "image_url"
            else (part["file"], "file_data")
        )
        if holder[name].startswith("data:"):
            data = holder[name].partition(",")[2]
            head = base64.b64decode(data)
            kind = next(kind for kind, magic in _KINDS.items() if head.startswith(magic))
            holder[name] = f"data:{kind};base64,{data}"


def _older_names(body: Body) -> None:
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in body]
    body["max_completion_tokens"] = min(body.pop(name) for name in names)
    user = body.pop("user", "")
    identifier = body.pop("safety_identifier", "") or user
    if identifier:
        body["safety_identifier"] = identifier


def _ranges(body: Body) -> None:
    if body.get("temperature", 0) > 1:
        body["temperature"] = 1
    if body.get("top_k", 1) <= 0:  # all
        del body["top_k"]
    if body.get("reasoning_effort") == "minimal":
        body["reasoning_effort"] = "low"
    stop = body.pop("stop", [])
    if kept := [text for text in ([stop] if isinstance(stop, str) else stop) if text.strip()]:
        body["stop"] = kept


def _what_is_so_anyway(body: Body) -> None:
    if body.get("service_tier") == "auto":
        del body["service_tier"]
    if body.get("response_format") == {"type": "text"}:
        del body["response_format"]
    if not body.get("stream", True):
        del body["stream"]


def _schemas(body: Body) -> None:
    """The name of a schema, and whether it is strict (it always is); its description moves in."""
    if "response_format" in body:
        outer = body["response_format"]["json_schema"]
        schema = outer["schema"]
        if "description" in outer:
            schema = {**schema, "description": outer["description"]}
        body["response_format"]["json_schema"] = {"schema": schema}


def _tools(body: Body) -> None:
    """No parameters are an empty object's; what is not said is not said."""
    for tool in body.get("tools", []):
        function = tool["function"]
        if not function.get("parameters"):
            function["parameters"] = {"type": "object", "properties": {}}
        for name in [name for name, value in function.items() if value is None]:
            del function[name]


def _parallel(body: Body) -> None:
    """Several calls at once are the rule; who wants one by one leaves the choice open."""
    one_by_one = body.pop("parallel_tool_calls", None) is False
    if one_by_one and "tools" in body:
        body.setdefault("tool_choice", "auto")
        if body["tool_choice"] != "none":
            body["parallel_tool_calls"] = False


def _parts(message: Body) -> Iterator[Body]:
    content = message.get("content")
    if isinstance(content, list):
        yield from content


LOSSES: dict[str, Callable[[Body], None]] = {
    "null": _null,
    "advice": _advice,
    "reasoning that Anthropic has not signed": _foreign_reasoning,
    "which results were plain text": _texts_of_tools,
    "whether a text stood in parts": _parts_of_texts,
    "that a text was a refusal": _refusals_are_texts,
    "blank texts": _blank_texts,
    "answers that said nothing": _empty_answers,
    "where later instructions stood, and how they were parted": _places_of_instructions,
    "where users spoke among results": _places_of_results,
    "signs in ids": _ids,
    "the spelling of arguments": _spelling_of_arguments,
    "what kind a file was called": _declared_kinds,
    "older names": _older_names,
    "what is out of range": _ranges,
    "what is so anyway": _what_is_so_anyway,
    "names of schemas": _schemas,
    "tools' empty parameters": _tools,
    "parallel calls, where they are allowed": _parallel,
}
