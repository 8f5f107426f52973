"""The Hugging Face router: OpenAI's dialect as a dozen providers behind it speak it.

Sources: recorded traffic, and the Hub's inference errors.
"""

from __future__ import annotations

import math
from typing import Any, Final

from server.dialects import account, openai, shapes
from server.dialects.base import Asked, Reader
from server.dialects.openai import Facts
from server.dialects.passing import FOREIGN
from server.dialects.plain import Plain
from server.dialects.tidy import TidyReader, whole
from server.errors import UpstreamStatus
from server.protocol.envelope import Surface

#: What the providers behind the router add to choices, and to whole answers.
_EXTRA: Final = ("seed", "token_id", "stop_reason")
_EXTRA_AROUND: Final = frozenset({"prompt", "sla_metrics", "kv_transfer_params", "prompt_logprobs"})
#: Text Generation Inference's reasons to finish.
_FINISHED: Final = {"eos": "stop", "eos_token": "stop", "stop_sequence": "stop"}
_EXTRA_SIGNS: Final = (
    *(f'"{name}"'.encode() for name in ("text", *_EXTRA, *_FINISHED)),
    b'"sla_metrics"',
)
#: Nobody waits longer for a model; what says so estimates badly.
_LONGEST_WAIT: Final = 600.0


class HuggingFace(Plain):
    """See `dialects.base.Dialect`. What a model cannot do, its provider says."""

    name = "huggingface"
    who = "Hugging Face"
    has = "chat or embeddings"
    foreign = FOREIGN

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        """Without what the providers behind the router add."""
        if asked.surface is Surface.CHAT:
            return whole(payload, _without_extra, extra=_EXTRA_AROUND)
        if asked.surface is Surface.COMPLETIONS:
            return whole(payload, _finished, part=None, extra=_EXTRA_AROUND)
        return payload, openai.answer_in(payload)

    def reader(self, asked: Asked) -> Reader:
        """The role once, and nothing added."""
        if asked.surface is Surface.COMPLETIONS:
            return TidyReader(
                asked, _finished, part=None, signs=_EXTRA_SIGNS[1:], extra=_EXTRA_AROUND
            )
        return TidyReader(asked, _without_extra, signs=_EXTRA_SIGNS, extra=_EXTRA_AROUND)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        return error_in(status, body)


def _without_extra(choice: dict[str, Any], part: dict[str, Any]) -> None:
    choice.pop("text", None)
    part.pop("text", None)
    _finished(choice, part)


def _finished(choice: dict[str, Any], part: dict[str, Any]) -> None:
    for name in _EXTRA:
        choice.pop(name, None)
        part.pop(name, None)
    reason = choice.get("finish_reason")
    if reason in _FINISHED:
        choice["finish_reason"] = _FINISHED[reason]


def error_in(status: int, body: bytes) -> UpstreamStatus:
    """`error` is a string, a list of them or an object. A model that loads says when to come back;
    one that no provider of the account has is not there, though another target may have it."""
    read = shapes.decoded(body)
    found = read if isinstance(read, dict) else {}
    error = found.get("error")
    if isinstance(error, list):
        error = " ".join(map(shapes.words, error))
        body = shapes.body_of(error)
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
            code=shapes.LOADING,
            retry_after=_seconds(wait),
            detail=f"HTTP 503: loading, estimated {account.noted(shapes.words(wait))}",
        )
    return openai.error_in(status, body)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return shapes.LOADS
    return min(max(float(value), 1.0), _LONGEST_WAIT)
