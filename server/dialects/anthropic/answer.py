"""Answer in: Anthropic's message as OpenAI's chat completion. Pure.

Besides OpenAI's own members a message may have three: `reasoning_content`, the text of its
thinking; `reasoning_details`, Anthropic's `thinking` and `redacted_thinking` blocks word for word,
with their signatures, which let the model go on where it was when they are sent back; and
`citations`, Anthropic's own with the `start` and `end` of what they stand for in the content. In
these lists each has its place as `index`, as OpenAI's SDK wants it of lists in a stream. A choice
may have `stop_reason`, vLLM's word for which of the texts in `stop` ended it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects.anthropic.errors import error_of
from server.dialects.base import Asked
from server.dialects.openai import Facts, Usage
from server.dialects.shapes import UNREADABLE
from server.errors import UpstreamAborted, UpstreamProtocol

#: Another reason is an end like any other.
FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
#: Anthropic's word for how it was served → OpenAI's; another one has none.
_TIERS: Final = {"standard": "default", "priority": "priority"}
#: No answer has so many tokens.
_MOST: Final = 2**32
_encode = msgspec.json.Encoder().encode


class Block(msgspec.Struct):
    """A block of any kind; what a kind does not have is empty."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    citations: Any = None
    id: str = ""
    name: str = ""
    #: As JSON; empty when it is missing.
    input: Raw = Raw()


class _Kind(msgspec.Struct):
    type: str = ""


class StopDetails(msgspec.Struct):
    category: Any = None
    explanation: Any = None


class _Message(msgspec.Struct):
    type: str = ""
    content: list[Raw] = []
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    stop_sequence: Any = None
    usage: Any = None
    error: Any = None


_message = msgspec.json.Decoder(_Message)
_kind = msgspec.json.Decoder(_Kind)
_block = msgspec.json.Decoder(Block)
_members = msgspec.json.Decoder(dict[str, Any])


class Counts:
    """Usage over one answer. What is said later, in whole or in part, replaces what was said."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}

    def add(self, said: Any) -> None:
        if isinstance(said, dict):  # who counts in nonsense still answers
            self._said.update((k, v) for k, v in said.items() if v is not None)

    def usage(self) -> Usage | None:
        """None: nothing was said."""
        if not self._said:
            return None
        cached = _count(self._said.get("cache_read_input_tokens"))
        written = _count(self._said.get("cache_creation_input_tokens"))
        fresh, out = self._said.get("input_tokens"), self._said.get("output_tokens")
        return Usage(
            _count(fresh) + written + cached,
            _count(out),
            cached,
            partly=not (_counted(fresh) and _counted(out)),
        )

    def tier(self) -> str | None:
        """How it was served, in OpenAI's words."""
        said = self._said.get("service_tier")
        return _TIERS.get(said) if isinstance(said, str) else None

    def shown(self) -> dict[str, Any] | None:
        """As OpenAI shows it."""
        usage = self.usage()
        if usage is None:
            return None
        details = self._said.get("output_tokens_details")
        thought = details.get("thinking_tokens") if isinstance(details, dict) else None
        written = _count(self._said.get("cache_creation_input_tokens"))
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {
                "cached_tokens": usage.cached,
                "cache_write_tokens": written,
            },
            "completion_tokens_details": {"reasoning_tokens": _count(thought)},
        }


def answer_in(payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
    """The chat completion, and what the relay must know of it. Raises UpstreamError."""
    try:
        said = _message.decode(payload)
        message = _said(said)
    except UNREADABLE as error:
        raise _no_answer(str(error)) from None
    if said.type == "error" or said.error is not None:
        raise error_of(said.error)
    if said.type != "message":
        raise _no_answer(f"an object of type {said.type[:40]!r}")
    if said.stop_reason is None:
        raise broken_off()
    counts = Counts()
    counts.add(said.usage)
    answer: dict[str, Any] = {
        "id": asked.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": FINISH.get(said.stop_reason, "stop"),
            }
        ],
    }
    if isinstance(said.stop_sequence, str):
        answer["choices"][0]["stop_reason"] = said.stop_sequence
    if (tier := counts.tier()) is not None:
        answer["service_tier"] = tier
    if (shown := counts.shown()) is not None:
        answer["usage"] = shown
    return _encode(answer), Facts(usage=counts.usage())


def _said(said: _Message) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    written = 0
    for member in said.content:
        kind = _kind.decode(member).type
        if kind not in _BLOCKS:  # what their own tools did, and what is not known yet
            continue
        block = _block.decode(member)
        if kind == "text":
            start, written = written, written + len(block.text)
            sources += cited(block.citations, start, written, len(sources))
            texts.append(block.text)
        elif kind == "tool_use":
            calls.append(
                {
                    "id": block.id,
                    "type": "function",
                    "function": {"name": block.name, "arguments": arguments_of(block)},
                }
            )
        else:
            thoughts.append(block.thinking)
            if block.signature or kind == "redacted_thinking":
                before = place(written, len(calls))
                details.append({"index": len(details), **before, **_members.decode(member)})
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not calls else None,
        "refusal": refusal_of(said.stop_details) if said.stop_reason == "refusal" else None,
    }
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if details:
        message["reasoning_details"] = details
    if sources:
        message["citations"] = sources
    if calls:
        message["tool_calls"] = calls
    return message


_BLOCKS: Final = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


def place(text: int, calls: int) -> dict[str, Any]:
    """Where a block of thinking stands in its message; nothing for one that comes first."""
    return {"after": {"text": text, "calls": calls}} if text or calls else {}


def cited(said: Any, start: int, end: int, before: int) -> list[dict[str, Any]]:
    """What a block of text cites, with the place of its text in the content; `before`: how many
    there were before it."""
    found = [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []
    return [
        {**one, "index": before + number, "start": start, "end": end}
        for number, one in enumerate(found)
    ]


def arguments_of(block: Block) -> str:
    """The input of a call, as the provider wrote it."""
    return bytes(block.input).decode() if bytes(block.input) else "{}"


def refusal_of(details: StopDetails | None) -> str:
    """Why the model stopped, in words. What it had said until then is in the content."""
    if details is not None and isinstance(details.explanation, str) and details.explanation:
        return details.explanation
    named = details is not None and isinstance(details.category, str) and details.category
    return f"The provider stopped this answer{f' ({named})' if named else ''}."


def broken_off() -> UpstreamAborted:
    """Anthropic names a reason for every end. vLLM, where it speaks this dialect, names none when
    it has given up: on its way down, or asleep."""
    return UpstreamAborted("The upstream gave up on its answer.", detail="no stop_reason")


def _no_answer(detail: str) -> UpstreamProtocol:
    return UpstreamProtocol("The upstream sent something that is no answer.", detail=detail)


def _counted(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST


def _count(value: Any) -> int:
    return int(value) if _counted(value) else 0
