"""What the SDKs read: Anthropic's in an answer of theirs, OpenAI's in what we made of it."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.dialects.replay import own_citations

#: What their end of an answer is here, once more, so that the code's table has something to err
#: against.
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "pause_turn": "stop",
    "refusal": "content_filter",
}


def meaning(message: Any) -> dict[str, Any]:
    """What the official SDK read."""
    usage, blocks = message.usage, message.content
    cached = usage.cache_read_input_tokens or 0
    details = usage.output_tokens_details
    return {
        "text": "".join(b.text for b in blocks if b.type == "text"),
        "thinking": "".join(b.thinking for b in blocks if b.type == "thinking"),
        "citations": _cited(blocks),
        "details": [b.to_dict() for b in blocks if b.type in ("thinking", "redacted_thinking")],
        "calls": [(b.id, b.name, b.input) for b in blocks if b.type == "tool_use"],
        "prompt": usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0),
        "completion": usage.output_tokens,
        "cached": cached,
        "thought": details.thinking_tokens if details else 0,
        "finish": FINISH[message.stop_reason],
    }


def _cited(blocks: Any) -> list[dict[str, Any]]:
    """The citations, with the place of the text that they stand for."""
    found, start = [], 0
    for block in (block for block in blocks if block.type == "text"):
        place = {"start": start, "end": start + len(block.text)}
        found += [{**one.to_dict(), **place} for one in block.citations or []]
        start = place["end"]
    return found


#: What we add to a block of thinking.
OURS: Final = frozenset({"index", "after"})


def ours(completion: Any) -> dict[str, Any]:
    """What the OpenAI SDK read of what we made of it."""
    choice, usage = completion.choices[0], completion.usage
    message = choice.message
    details = getattr(message, "reasoning_details", None) or []
    return {
        "text": message.content or "",
        "thinking": getattr(message, "reasoning_content", None) or "",
        "citations": own_citations(message, 0),
        "details": [{k: v for k, v in d.items() if k not in OURS} for d in details],
        "calls": [
            (c.id, c.function.name, json.loads(c.function.arguments))
            for c in message.tool_calls or []
        ],
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens,
        "thought": usage.completion_tokens_details.reasoning_tokens,
        "finish": choice.finish_reason,
    }
