"""Rerank in Cohere's own shape, which vLLM and others serve as /v1/rerank: there is none of
OpenAI's. What clients of those send besides, and what their answers have besides, is brought into
line; the rest passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.dialects.base import Asked, Outgoing
from server.dialects.cohere.answer import count
from server.dialects.given import Given, wrong
from server.dialects.openai import Facts, Usage
from server.dialects.shapes import UNREADABLE
from server.errors import InvalidRequest, UpstreamProtocol

RERANK_PATH: Final = "/rerank"


def rerank_out(members: Mapping[str, object], *, model: str, drop: frozenset[str]) -> Outgoing:
    """The body of a POST /v2/rerank. Documents are texts, or objects with a `text`."""
    given = Given(members, drop, "Cohere")
    given.take("model")
    given.take("stream")  # there is none, and none was asked for
    body: dict[str, Any] = {
        "model": model,
        "query": _needed(given, "query", str),
        "documents": [_text(one, i) for i, one in enumerate(_needed(given, "documents", list))],
    }
    for name in ("top_n", "max_tokens_per_doc"):
        if value := given.whole(name):  # 0 is vLLM's word for no bound
            body[name] = value
    if (spans := given.take_as("relevant_spans", dict)) is not None:
        body["relevant_spans"] = spans
    given.close()
    return Outgoing(
        RERANK_PATH,
        msgspec.json.encode(body),
        dropped=tuple(given.dropped),
        lowered=tuple(given.lowered),
    )


def _needed(given: Given, name: str, kind: type) -> Any:
    value = given.take_as(name, kind)
    if value is None:
        raise InvalidRequest(
            f"You must provide `{name}`.", param=name, code="missing_required_parameter"
        )
    return value


def _text(document: Any, index: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise wrong(f"documents[{index}]", "a string, or an object with a `text`")
    if isinstance(document, dict) and len(document) > 1:
        raise InvalidRequest(
            f"`documents[{index}]`: Cohere takes the `text` of a document alone.",
            param=f"documents[{index}]",
            code="unsupported_parameter",
        )
    return text


class _Tokens(msgspec.Struct):
    input_tokens: Any = None


class _Meta(msgspec.Struct):
    tokens: _Tokens | None = None


class _Told(msgspec.Struct):
    """As vLLM counts."""

    prompt_tokens: Any = None
    total_tokens: Any = None


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Result]
    id: str | None = None
    meta: _Meta | None = None
    usage: _Told | None = None


_answer: Final = msgspec.json.Decoder(_Answer)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def rerank_in(payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
    """The answer as it came, with an id, the model's name as the client knows it, and what was
    counted in `usage`, too."""
    try:
        answer, members = _answer.decode(payload), _members.decode(payload)
    except UNREADABLE as error:
        raise UpstreamProtocol(
            "The upstream sent something that is no answer.", detail=str(error)
        ) from None
    out: dict[str, Any] = {**members, "model": asked.model}
    if answer.id is None:
        out["id"] = asked.id
    tokens = count(answer.usage.prompt_tokens) if answer.usage is not None else None
    if tokens is None and answer.meta is not None and answer.meta.tokens is not None:
        tokens = count(answer.meta.tokens.input_tokens)
    if tokens is None:
        return msgspec.json.encode(out), Facts()
    if answer.usage is None:  # where clients of vLLM and Jina look for it
        out["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode(out), Facts(usage=Usage(prompt=tokens))
