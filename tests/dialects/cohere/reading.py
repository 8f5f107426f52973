"""What Cohere's own SDK reads in recorded answers."""

from __future__ import annotations

import functools
import json
from typing import Any

import cohere
import httpx

#: Once more, so that the code's table has something to err against.
FINISH = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}


class _Canned(httpx.BaseTransport):
    """Answers with what `answer` was set to. A client takes long to make, so that there is one."""

    answer: tuple[int, str, str] = (200, "", "")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        status, body, kind = self.answer
        return httpx.Response(status, content=body, headers={"content-type": kind})


_CANNED = _Canned()


@functools.cache
def _sdk() -> cohere.ClientV2:
    return cohere.ClientV2(api_key="k", httpx_client=httpx.Client(transport=_CANNED))


def sdk(one: dict[str, Any]) -> cohere.ClientV2:
    """Cohere's SDK, whose next request gets this answer."""
    _CANNED.answer = one["status"], one["body"], one["headers"]["content-type"]
    return _sdk()


def usage_of(usage: Any) -> tuple[int, int, int] | None:
    if usage is None or usage.tokens is None:
        return None
    return (
        int(usage.tokens.input_tokens),
        int(usage.tokens.output_tokens),
        int(usage.cached_tokens or 0),
    )


def whole(one: dict[str, Any]) -> dict[str, Any]:
    """What Cohere's SDK reads in an answer."""
    found = sdk(one).chat(model="m", messages=[], request_options={"max_retries": 0})
    content = found.message.content or []
    return {
        "text": "".join(part.text for part in content if part.type == "text"),
        "thinking": "".join(part.thinking for part in content if part.type == "thinking")
        + (found.message.tool_plan or ""),
        "citations": [json.loads(c.json()) for c in found.message.citations or []],
        "calls": [
            [call.id, call.function.name, call.function.arguments]
            for call in found.message.tool_calls or []
            if call.function
        ],
        "finish": FINISH[found.finish_reason],
        "usage": usage_of(found.usage),
    }


def streamed(one: dict[str, Any]) -> dict[str, Any]:
    """What Cohere's SDK reads in a stream."""
    out: dict[str, Any] = {"text": "", "thinking": "", "calls": [], "citations": []}
    event: Any
    for event in sdk(one).chat_stream(model="m", messages=[]):
        message: Any = getattr(getattr(event, "delta", None), "message", None)
        if event.type == "content-delta":
            out["text"] += message.content.text or ""
            out["thinking"] += message.content.thinking or ""
        elif event.type == "tool-plan-delta":
            out["thinking"] += message.tool_plan
        elif event.type == "tool-call-start":
            call = message.tool_calls
            out["calls"].append([call.id, call.function.name, call.function.arguments])
        elif event.type == "tool-call-delta":
            out["calls"][event.index][2] += message.tool_calls.function.arguments
        elif event.type == "citation-start":
            out["citations"].append(json.loads(message.citations.json()))
        elif event.type == "message-end":
            out["finish"] = FINISH.get(event.delta.finish_reason, "error")
            out["usage"] = usage_of(event.delta.usage)
    return out
