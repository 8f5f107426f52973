"""A stream of Cohere's, event by event, as OpenAI's chunks."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.dialects.base import Asked
from server.dialects.cohere.answer import (
    Call,
    Content,
    Counted,
    Logprob,
    cited,
    finish_of,
    logprobs_of,
    usage_of,
    usage_out,
)
from server.dialects.openai import Usage, error_of_event
from server.dialects.shapes import UNREADABLE
from server.errors import UpstreamProtocol
from server.protocol.sse import LAST


class _Message(msgspec.Struct):
    #: An object in events, though a list where nothing is in it yet.
    content: Content | list[Any] | None = None
    tool_plan: str | None = None
    #: One call, not a list of them.
    tool_calls: Call | list[Any] | None = None
    citations: Any = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Counted | None = None
    error: Any = None
    error_type: Any = None


class _Event(msgspec.Struct):
    type: str | None = None
    index: int = 0
    delta: _Delta | None = None
    logprobs: Logprob | None = None
    #: Only an error has these.
    message: Any = None
    error: Any = None


_event: Final = msgspec.json.Decoder(_Event)
_NOTHING: Final = _Message()


class ChatReader:
    """One stream; see `dialects.base.Reader`."""

    __slots__ = ("_asked", "_calls", "_citations", "_empty", "_head", "_started", "done", "usage")

    def __init__(self, asked: Asked) -> None:
        self.usage: Usage | None = None
        self.done = False
        self._asked = asked
        self._started = False
        self._citations = 0
        #: Cohere's index of a call → ours, which counts calls alone.
        self._calls: dict[int, int] = {}
        #: Calls without any argument until now.
        self._empty: set[int] = set()
        self._head: dict[str, Any] = {
            "id": asked.id,
            "object": "chat.completion.chunk",
            "created": asked.created,
            "model": asked.model,
        }

    def feed(self, event: str | None, payload: bytes) -> list[bytes]:
        if self.done or payload == LAST or not payload:
            return []
        try:
            found = _event.decode(payload)
        except UNREADABLE as error:
            raise UpstreamProtocol(
                "The upstream sent an event that cannot be read.", detail=str(error)
            ) from None
        kind = found.type or event
        delta = found.delta or _Delta()
        if kind == "content-delta" or kind == "content-start":
            return self._content(delta.message or _NOTHING, found.logprobs)
        if kind == "tool-call-delta":
            return self._arguments(found.index, delta.message or _NOTHING)
        if kind == "tool-plan-delta":
            return self._say(reasoning_content=(delta.message or _NOTHING).tool_plan)
        if kind == "tool-call-start":
            return self._call(found.index, delta.message or _NOTHING)
        if kind == "tool-call-end":
            return self._end_call(found.index)
        if kind == "citation-start":
            return self._cite((delta.message or _NOTHING).citations)
        if kind == "message-start":
            return self._start()
        if kind == "message-end":
            return self._end(delta)
        if kind == "error" or (found.type is None and (found.error or found.message)):
            raise error_of_event(found.error or found.message)
        return []  # content-end, citation-end, debug, and what is yet to come

    def _start(self) -> list[bytes]:
        if self._started:
            return []
        self._started = True
        return [self._chunk({"role": "assistant", "content": ""})]

    def _say(self, **delta: Any) -> list[bytes]:
        said = {name: value for name, value in delta.items() if value}
        return [*self._start(), self._chunk(said)] if said else []

    def _content(self, message: _Message, logprob: Logprob | None) -> list[bytes]:
        content = message.content
        if not isinstance(content, Content):
            return []
        if logprob is None:
            return self._say(content=content.text, reasoning_content=content.thinking)
        return [
            *self._start(),
            self._chunk({"content": content.text or ""}, logprobs=logprobs_of([logprob])),
        ]

    def _call(self, index: int, message: _Message) -> list[bytes]:
        call = message.tool_calls
        function = call.function if isinstance(call, Call) else None
        if not isinstance(call, Call) or function is None or not call.id or not function.name:
            raise UpstreamProtocol(
                "The upstream sent a call of a tool without a name.", detail="no id or no name"
            )
        number = self._calls[index] = len(self._calls)
        if not function.arguments:
            self._empty.add(number)
        named = {"name": function.name, "arguments": function.arguments or ""}
        entry = {"index": number, "id": call.id, "type": "function", "function": named}
        return self._say(tool_calls=[entry])

    def _arguments(self, index: int, message: _Message) -> list[bytes]:
        call = message.tool_calls
        function = call.function if isinstance(call, Call) else None
        if function is None or not function.arguments:
            return []
        if index not in self._calls:
            raise UpstreamProtocol(
                "The upstream sent arguments of no call.", detail=f"tool call {index}"
            )
        number = self._calls[index]
        self._empty.discard(number)
        return self._more(number, function.arguments)

    def _more(self, number: int, arguments: str) -> list[bytes]:
        return self._say(tool_calls=[{"index": number, "function": {"arguments": arguments}}])

    def _end_call(self, index: int) -> list[bytes]:
        number = self._calls.get(index, -1)
        if number not in self._empty:
            return []
        self._empty.discard(number)
        return self._more(number, "{}")  # what clients can decode

    def _cite(self, citations: Any) -> list[bytes]:
        """One citation, or several; in an answer of ours they are a list."""
        if not citations:
            return []
        found = cited(citations if isinstance(citations, list) else [citations], self._citations)
        self._citations += len(found)
        return self._say(citations=found)

    def _end(self, delta: _Delta) -> list[bytes]:
        self.usage = usage_of(delta.usage) or self.usage
        reason = finish_of(
            delta.finish_reason, delta.error, delta.error_type, called=bool(self._calls)
        )
        out = self._start()
        for number in sorted(self._empty):  # without an end of their own
            out += self._more(number, "{}")
        out.append(self._chunk({}, reason))
        if self._asked.wants_usage and self.usage is not None:
            out.append(
                msgspec.json.encode({**self._head, "choices": [], "usage": usage_out(self.usage)})
            )
        self.done = True
        return [*out, LAST]

    def _chunk(
        self, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": reason}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return msgspec.json.encode({**self._head, "choices": [choice]})
