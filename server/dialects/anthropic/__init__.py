"""The Anthropic dialect: `POST /v1/messages` behind OpenAI's chat completions.

request.py   the request: its parameters, tools and formats
messages.py  its messages, as a system prompt and turns; what is lost, by name
media.py     its images and documents
settings.py  what account and card say; how a model thinks
answer.py    a whole answer
stream.py    a stream, event by event
errors.py    errors

Settings: `version` (of the API), `max_tokens`, `thinking`, `thinking_display`, `later_system`.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.dialects.anthropic.answer import answer_in
from server.dialects.anthropic.errors import error_in
from server.dialects.anthropic.request import request_out
from server.dialects.anthropic.settings import settings_of
from server.dialects.anthropic.stream import AnthropicReader
from server.dialects.base import Asked, Outgoing, Reader
from server.dialects.openai import Facts
from server.errors import InvalidRequest, UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.request import Request


class Anthropic:
    """See `server.dialects.base.Dialect`."""

    name = "anthropic"
    lacks = frozenset({"audio", "logprobs", "n"})

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        if request.surface is not Surface.CHAT:
            raise InvalidRequest(
                "This model's provider has chat completions alone.",
                param="model",
                code="unsupported_endpoint",
            )
        return request_out(
            members,
            model=model,
            stream=request.stream,
            drop=drop,
            settings=settings_of(settings),
        )

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        return answer_in(payload, asked)

    def reader(self, asked: Asked) -> Reader:
        return AnthropicReader(asked)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        return error_in(status, body)
