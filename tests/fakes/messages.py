"""Anthropic's Messages API as its answers look, for the scripted upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.fakes.exchange import Gate, Script, compact
from tests.fakes.scripts import Action, Item, answer_json, sse

USAGE = {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 2}


def message(*blocks: dict[str, Any] | str, reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    """A whole answer; a string is a block of text."""
    content = [{"type": "text", "text": b} if isinstance(b, str) else b for b in blocks]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-theirs",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": USAGE,
        **more,
    }


def message_answer(*blocks: dict[str, Any] | str, **more: Any) -> Script:
    return answer_json(200, message(*blocks, **more))


def refusal(status: int, kind: str, text: str = "no", **headers: str) -> Script:
    """An error of theirs."""
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_up"}
    return answer_json(status, body, headers)


def event(kind: str, **members: Any) -> bytes:
    """One event, as they name it in two places."""
    return f"event: {kind}\ndata: {compact({'type': kind, **members})}\n\n".encode()


def start() -> bytes:
    return event("message_start", message=message(usage={"input_tokens": 7, "output_tokens": 1}))


def text_events(*texts: str, index: int = 0) -> list[bytes]:
    """One block of text."""
    block = {"type": "text", "text": ""}
    return [
        event("content_block_start", index=index, content_block=block),
        *(
            event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})
            for text in texts
        ),
        event("content_block_stop", index=index),
    ]


def call_events(id: str, name: str, *arguments: str, index: int = 0) -> list[bytes]:
    """One call of a tool, its arguments in pieces."""
    block = {"type": "tool_use", "id": id, "name": name, "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]
    return [
        event("content_block_start", index=index, content_block=block),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def end(reason: str = "end_turn") -> list[bytes]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [event("message_delta", delta=delta, usage=USAGE), event("message_stop")]


def overloaded() -> bytes:
    return event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def message_stream(
    texts: Sequence[str], *, gate: Gate | None = None, then: Action | None = None
) -> Script:
    """A stream of one text; a ticket of the gate lets one event pass."""
    items: list[Item] = [start(), event("ping"), *text_events(*texts), *end()]
    return sse(items, gate=gate, then=then)
