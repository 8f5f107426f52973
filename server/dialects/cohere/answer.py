"""A chat's answer from Cohere as OpenAI's, and what the parts of one have in common with streams.

ERROR and TIMEOUT come with status 200 and are errors all the same.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from server.dialects import account, shapes
from server.dialects.base import Asked
from server.dialects.openai import Facts, Usage
from server.errors import (
    UpstreamAborted,
    UpstreamError,
    UpstreamProtocol,
    UpstreamStatus,
)

_FINISHED: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
_WORD: Final = re.compile(r"[A-Z][A-Z_]{1,63}")
#: No answer has so many tokens.
_MOST: Final = 2**32


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    id: str | None = None
    function: Function | None = None


class Content(msgspec.Struct):
    """A part of an answer, or what is new of one. A type that is not known says nothing."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class Logprob(msgspec.Struct):
    """Of a piece of text, which may be several tokens."""

    text: str | None = None
    logprobs: list[float] | None = None


class Tokens(msgspec.Struct):
    input_tokens: Any = None
    output_tokens: Any = None


class Counted(msgspec.Struct):
    tokens: Tokens | None = None
    billed_units: Tokens | None = None
    cached_tokens: Any = None


class _Message(msgspec.Struct):
    content: list[Content] | str | None = None
    tool_plan: str | None = None
    tool_calls: list[Call] | None = None
    citations: list[Any] | None = None


class _Answer(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    usage: Counted | None = None
    logprobs: list[Logprob] | None = None
    error: Any = None
    error_type: Any = None


_answer: Final = msgspec.json.Decoder(_Answer)


def chat_in(payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
    """OpenAI's answer, and its usage. Raises UpstreamError."""
    try:
        answer = _answer.decode(payload)
    except shapes.UNREADABLE as error:
        raise UpstreamProtocol(
            "The upstream sent something that is no answer.", detail=str(error)
        ) from None
    message = answer.message
    calls = [call_of(call) for call in message.tool_calls or ()]
    reason = finish_of(answer.finish_reason, answer.error, answer.error_type, called=bool(calls))
    content, thought = _read(message.content)
    said: dict[str, Any] = {
        "role": "assistant",
        "content": content if content or not calls else None,
        "refusal": None,
    }
    if thought or message.tool_plan:
        said["reasoning_content"] = thought + (message.tool_plan or "")
    if calls:
        said["tool_calls"] = calls
    if message.tool_plan:
        said["tool_plan"] = message.tool_plan
    if message.citations:
        said["citations"] = cited(message.citations, 0)
    choice: dict[str, Any] = {"index": 0, "message": said, "finish_reason": reason}
    choice["logprobs"] = logprobs_of(answer.logprobs or ())
    usage = usage_of(answer.usage)
    out = {
        "id": asked.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [choice],
    }
    if usage is not None:
        out["usage"] = usage_out(usage)
    return msgspec.json.encode(out), Facts(usage=usage)


def _read(content: list[Content] | str | None) -> tuple[str, str]:
    """The text and the thoughts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    text = "".join(part.text for part in content if part.text)
    return text, "".join(part.thinking for part in content if part.thinking)


def cited(said: list[Any], before: int) -> list[Any]:
    """Cohere's citations, each with its place as `index`, as OpenAI's SDK wants it of lists in a
    stream; `before`: how many there were before them."""
    return [
        {**one, "index": before + number} if isinstance(one, dict) else one
        for number, one in enumerate(said)
    ]


def call_of(call: Call) -> dict[str, Any]:
    """A whole call as OpenAI's."""
    function = call.function or Function()
    if not call.id or not function.name:
        raise UpstreamProtocol(
            "The upstream sent a call of a tool without a name.", detail="no id or no name"
        )
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": function.name, "arguments": function.arguments or "{}"},
    }


def finish_of(reason: str | None, error: object, kind: object, *, called: bool) -> str:
    """OpenAI's finish reason; `called`: there are calls of tools, for a reason that is not known.
    Raises UpstreamError where the end is an error."""
    if reason in _FINISHED:
        return _FINISHED[reason]
    if reason == "ERROR_TOXIC":
        return "content_filter"
    if (reason is not None and reason.startswith(("ERROR", "TIMEOUT"))) or error is not None:
        raise gave_up(reason, error, kind)
    return "tool_calls" if called else "stop"


def gave_up(reason: str | None, error: object, kind: object) -> UpstreamError:
    """What an end with `ERROR` or `TIMEOUT` is. The client learns Cohere's word for it alone."""
    words = (w for w in (kind, reason) if isinstance(w, str) and _WORD.fullmatch(w))
    word = next(words, "ERROR")
    detail = f"{word}: {account.noted(shapes.words(error))}"
    if reason == "TIMEOUT":
        return UpstreamStatus(
            504, message="The upstream took too long for its answer (TIMEOUT).", detail=detail
        )
    return UpstreamAborted(f"The upstream gave up on its answer ({word}).", detail=detail)


def usage_of(counted: Counted | None) -> Usage | None:
    """Tokens as the model had them; what was billed only where Cohere says nothing else."""
    if counted is None:
        return None
    tokens, partly = counted.tokens, False
    if tokens is None:
        tokens, partly = counted.billed_units, True
    if tokens is None:
        return None
    prompt, completion = count(tokens.input_tokens), count(tokens.output_tokens)
    if prompt is None and completion is None:
        return None
    return Usage(
        prompt or 0,
        completion or 0,
        count(counted.cached_tokens) or 0,
        partly=partly or prompt is None or completion is None,
    )


def count(value: object) -> int | None:
    """A count, which Cohere sends as a float at times; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and 0 <= value < _MOST else None


def usage_out(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def logprobs_of(items: list[Logprob] | tuple[()]) -> dict[str, Any] | None:
    """OpenAI's logprobs. Cohere tells them by pieces of text, and the probability of a piece is the
    product of its tokens', so that the logarithms are added up."""
    content = [
        {
            "token": item.text or "",
            "logprob": math.fsum(item.logprobs),
            "bytes": list((item.text or "").encode()),
            "top_logprobs": [],
        }
        for item in items
        if item.logprobs
    ]
    return {"content": content, "refusal": None} if content else None
