"""Quirks of providers that speak OpenAI's dialect otherwise: DeepSeek and the Hugging Face router.

Sources: DeepSeek's page on thinking (api-docs.deepseek.com/guides/thinking_mode), recorded traffic
of both, and the Hub's inference errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects import openai
from server.dialects.base import Asked
from server.dialects.openai import Facts
from server.dialects.tidy import TidyReader, nothing, whole
from server.errors import UpstreamStatus
from server.protocol.envelope import raw
from server.protocol.parameters import given

# --- DeepSeek

#: Without thinking, by its name; all others think unless they are told not to.
_NO_THINKING: Final = frozenset({"deepseek-chat"})
#: What DeepSeek takes and passes over while it thinks.
_PASSED_OVER: Final = ("temperature", "presence_penalty", "frequency_penalty")
_NONE: Final = Raw(b'"none"')
#: Of what a message may have to be told otherwise.
_SIGNS: Final = (b'"developer"', b'"reasoning"', b'"tool_calls"')
_BROKEN_OFF: Final = b'"insufficient_system_resource"'
_decode: Final = msgspec.json.decode


def deepseek_out(
    members: Mapping[str, Any], *, model: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The members (as JSON) for DeepSeek, and the names of those that it would pass over.

    `reasoning_effort: none` is its `thinking`, and the longest answer has the one name it knows.
    """
    out = dict(members)
    if given(out, "reasoning_effort") == _NONE:
        del out["reasoning_effort"]
        out.setdefault("thinking", raw({"type": "disabled"}))
    if given(out, "max_completion_tokens") is not None:
        longest = out.pop("max_completion_tokens")
        if given(out, "max_tokens") is None:
            out["max_tokens"] = longest
    thinks = _thinks(out, model)
    dropped = tuple(n for n in _PASSED_OVER if given(out, n) is not None) if thinks else ()
    for name in dropped:
        del out[name]
    messages = out.get("messages")
    if isinstance(messages, Raw) and any(sign in bytes(messages) for sign in _SIGNS):
        out["messages"] = deepseek_history(messages, thinks=thinks)
    return out, dropped


def _thinks(members: Mapping[str, Any], model: str) -> bool:
    said = given(members, "thinking")
    if isinstance(said, Raw):
        try:
            found = _decode(said)
        except (msgspec.MsgspecError, RecursionError):
            return True
        if isinstance(found, dict) and found.get("type") in ("enabled", "disabled"):
            return bool(found["type"] == "enabled")
    return model not in _NO_THINKING


def deepseek_history(messages: Raw, *, thinks: bool) -> Raw:
    """Messages as DeepSeek wants them back: `system` for `developer`, thoughts under its name for
    them, and where it thinks, thoughts with every call of a tool: it refuses history without. Those
    of another model have none for it, and an empty text will do.
    """
    try:
        found = _decode(messages)
    except (msgspec.MsgspecError, RecursionError):
        return messages
    for message in found if isinstance(found, list) else ():
        if not isinstance(message, dict):
            continue
        if message.get("role") == "developer":
            message["role"] = "system"
        if message.get("role") != "assistant":
            continue
        thought = message.pop("reasoning", None)
        if message.get("reasoning_content") is None:
            message.pop("reasoning_content", None)
            if isinstance(thought, str):
                message["reasoning_content"] = thought
            elif thinks and message.get("tool_calls"):
                message["reasoning_content"] = ""
    return raw(found)


def deepseek_in(payload: bytes) -> tuple[bytes, Facts]:
    """A whole answer: without the blank lines that DeepSeek sends ahead while it is busy. One that
    it broke off for want of resources is an error."""
    answer = payload.lstrip()
    if _BROKEN_OFF in answer:
        return whole(answer, nothing)
    return answer, openai.answer_in(answer)


def deepseek_reader(asked: Asked) -> TidyReader:
    """A stream: its usage rides on the last chunk, asked for or not."""
    return TidyReader(asked, nothing)


# --- Hugging Face's router

#: What the providers behind the router add to choices, and to whole answers.
_EXTRA: Final = ("text", "seed", "token_id", "stop_reason")
_EXTRA_AROUND: Final = frozenset({"prompt", "sla_metrics", "kv_transfer_params", "prompt_logprobs"})
#: Text Generation Inference's reasons to finish.
_FINISHED: Final = {"eos": "stop", "eos_token": "stop", "stop_sequence": "stop"}
_EXTRA_SIGNS: Final = (
    *(f'"{name}"'.encode() for name in (*_EXTRA, *_FINISHED)),
    b'"sla_metrics"',
)
#: Nobody waits longer for a model; what says so estimates badly.
_LONGEST_WAIT: Final = 600.0


def huggingface_in(payload: bytes) -> tuple[bytes, Facts]:
    """A whole answer without what the providers behind the router add."""
    return whole(payload, _without_extra, _EXTRA_AROUND)


def huggingface_reader(asked: Asked) -> TidyReader:
    """A stream: the role once, and nothing added."""
    return TidyReader(asked, _without_extra, signs=_EXTRA_SIGNS, extra=_EXTRA_AROUND)


def _without_extra(choice: dict[str, Any], part: dict[str, Any]) -> None:
    for name in _EXTRA:
        choice.pop(name, None)
        part.pop(name, None)
    reason = choice.get("finish_reason")
    if reason in _FINISHED:
        choice["finish_reason"] = _FINISHED[reason]


def huggingface_error(status: int, body: bytes) -> UpstreamStatus:
    """`error` is a string, a list of them or an object. A model that loads says when to come back;
    one that no provider of the account has is not there, though another target may have it."""
    found = _error_of(body)
    error = found.get("error")
    if isinstance(error, list):
        error = " ".join(str(item) for item in error)
        body = msgspec.json.encode({"error": error})
    inner: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    if inner.get("code") == "model_not_supported":
        missing = UpstreamStatus(
            404,
            message="No provider behind the upstream serves this model.",
            code="model_not_found",
            param="model",
            detail=f"HTTP {status}: model_not_supported",
        )
        missing.retryable = True
        return missing
    message = inner.get("message")
    if status == 503 and isinstance(message, str) and "loading" in message.lower():
        wait = found.get("estimated_time")
        return UpstreamStatus(
            503,
            message="The model is being loaded at the upstream.",
            code="engine_loading",
            retry_after=_seconds(wait),
            detail=f"HTTP 503: loading, estimated {wait}",
        )
    return openai.error_in(status, body)


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return min(max(float(value), 1.0), _LONGEST_WAIT)
