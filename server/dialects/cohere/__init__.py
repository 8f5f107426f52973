"""Cohere's API v2: chat, embeddings and rerank.

The base URL ends with /v2. What has no place on either side is refused or named; see the rooms:

    messages, request   OpenAI's chat → Cohere's
    answer, stream      Cohere's chat → OpenAI's
    embed, rerank       both ways, each in one file
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.dialects import openai
from server.dialects.base import Asked, Outgoing, Reader
from server.dialects.cohere.answer import chat_in
from server.dialects.cohere.embed import embed_in, embed_out
from server.dialects.cohere.request import chat_out
from server.dialects.cohere.rerank import rerank_in, rerank_out
from server.dialects.cohere.stream import ChatReader
from server.dialects.openai import Facts
from server.dialects.trouble import Trouble
from server.errors import InvalidRequest, UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.request import Request

#: The input or the answer held a word that Cohere denies.
_DENIED: Final = 498
#: Cohere says that the caller hung up. We did not, or nobody would read this.
_HUNG_UP: Final = 499


class Cohere:
    """See `dialects.base.Dialect`. Settings: `input_type` and `truncate` of embeddings."""

    name = "cohere"
    lacks = frozenset({"audio", "n"})

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        if request.surface is Surface.CHAT:
            return chat_out(members, model=model, stream=request.stream, drop=drop)
        if request.surface is Surface.EMBEDDINGS:
            return embed_out(members, model=model, drop=drop, settings=settings)
        if request.surface is Surface.RERANK:
            return rerank_out(members, model=model, drop=drop)
        raise InvalidRequest(
            f"Cohere has no {request.surface.value}: use chat, embeddings or rerank.",
            param="model",
            code="unsupported_endpoint",
        )

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        if asked.surface is Surface.EMBEDDINGS:
            return embed_in(payload, asked)
        if asked.surface is Surface.RERANK:
            return rerank_in(payload, asked)
        return chat_in(payload, asked)

    def reader(self, asked: Asked) -> Reader:
        return ChatReader(asked)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        """`{"id", "message"}`, with statuses of Cohere's own."""
        if status == _DENIED:
            return _denied()
        if status == _HUNG_UP:
            status = 502
        return openai.error_in(status, body)


def _denied() -> UpstreamStatus:
    error = UpstreamStatus(
        400,
        message="The upstream will not answer this: it holds words that it denies.",
        code="content_policy_violation",
        detail=f"HTTP {_DENIED}",
    )
    error.trouble = Trouble.CONTENT_POLICY
    return error
