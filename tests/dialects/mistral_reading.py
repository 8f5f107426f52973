"""What Mistral's own SDK reads in an answer."""

from __future__ import annotations

import functools
from typing import Any

import httpx2
from mistralai.client import Mistral as Sdk

from tests.dialects.replay import CANNED


@functools.cache
def _sdk() -> Sdk:
    return Sdk(api_key="k", client=httpx2.Client(transport=CANNED))


def sdk(body: str, kind: str, status: int = 200) -> Sdk:
    """Mistral's SDK, whose next request gets this answer."""
    CANNED.answer = status, body.encode(), kind
    return _sdk()


def split(content: Any) -> tuple[str, str]:
    """Text and thoughts, as the SDK has them."""
    if not isinstance(content, list):
        return content or "", ""
    text = "".join(part.text for part in content if part.type == "text")
    thoughts = [part.thinking for part in content if part.type == "thinking"]
    return text, "".join(item.text for thought in thoughts for item in thought)


def cited(content: Any, before: int) -> list[Any]:
    """The references, with their places; `before`: characters of the text until now."""
    found = []
    for part in content if isinstance(content, list) else []:
        before += len(part.text) if part.type == "text" else 0
        if part.type == "reference":
            place = {"start": before, "end": before}
            found.append({"type": "reference", "reference_ids": part.reference_ids, **place})
    return found


def counted(usage: Any) -> tuple[int, int, int]:
    more = usage.additional_properties
    details = more.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", more.get("num_cached_tokens", 0))
    return usage.prompt_tokens, usage.completion_tokens, cached


def whole(body: str, status: int = 200) -> dict[str, Any]:
    found = sdk(body, "application/json", status).chat.complete(model="m", messages=[])
    (choice,) = found.choices
    message = choice.message
    assert message is not None
    text, thinking = split(message.content)
    return {
        "text": text,
        "thinking": thinking,
        "citations": cited(message.content, 0),
        "calls": [
            [call.id, call.function.name, call.function.arguments]
            for call in message.tool_calls or []
        ],
        "finish": choice.finish_reason,
        "usage": counted(found.usage),
    }


def streamed(body: str) -> dict[str, Any]:
    made: dict[str, Any] = {"text": "", "thinking": "", "citations": [], "calls": []}
    stream = sdk(body, "text/event-stream").chat.stream(model="m", messages=[])
    for event in stream:
        (choice,) = event.data.choices
        text, thinking = split(choice.delta.content)
        made["citations"] += cited(choice.delta.content, len(made["text"]))
        made["text"] += text
        made["thinking"] += thinking
        for call in choice.delta.tool_calls or []:
            if call.id != "null":
                made["calls"].append([call.id, call.function.name, call.function.arguments])
            else:
                made["calls"][call.index][2] += call.function.arguments
        if choice.finish_reason:
            made["finish"] = choice.finish_reason
        if event.data.usage:
            made["usage"] = counted(event.data.usage)
    return made
