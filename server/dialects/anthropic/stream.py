"""Event in: Anthropic's stream as OpenAI's chunks.

Theirs counts blocks, OpenAI's only calls of tools, so that the two indexes differ. Text, thinking
and arguments go on as they come; `reasoning_details` when a block is whole, since a signature is
its last word. Nothing here waits for an event that may not come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects.anthropic.answer import (
    FINISH,
    Block,
    Counts,
    StopDetails,
    broken_off,
    cited,
    place,
    refusal_of,
)
from server.dialects.anthropic.errors import error_of
from server.dialects.base import Asked
from server.dialects.openai import Usage
from server.dialects.shapes import UNREADABLE
from server.errors import UpstreamProtocol
from server.protocol.sse import LAST

_encode = msgspec.json.Encoder().encode
_NOTHING: Final[tuple[bytes, ...]] = ()
_KNOWN: Final = frozenset(
    "message_start content_block_start content_block_delta content_block_stop message_delta "
    "message_stop error".split()
)


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: Any = None
    stop_sequence: Any = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _Start(msgspec.Struct):
    usage: Any = None


class _Event(msgspec.Struct):
    """An event of any kind; what a kind does not have is empty."""

    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: Raw = Raw()
    message: _Start | None = None
    usage: Any = None
    error: Any = None


class _Kind(msgspec.Struct):
    type: str = ""


_event = msgspec.json.Decoder(_Event)
_kind = msgspec.json.Decoder(_Kind)
_block = msgspec.json.Decoder(Block)
_members = msgspec.json.Decoder(dict[str, Any])


class _Call:
    """A tool's call under way. `input` is what its start said, for one that gets no arguments."""

    __slots__ = ("index", "input", "prefix", "told")

    def __init__(self, index: int, block: Block) -> None:
        self.index = index
        self.prefix = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
        self.input = bytes(block.input) or b"{}"
        self.told = False


class _Text:
    """A block of text under way: where it began in the content, and what it cites."""

    __slots__ = ("cited", "start")

    def __init__(self, start: int, cites: Any) -> None:
        self.start = start
        self.cited: list[Any] = list(cites) if isinstance(cites, list) else []


class _Thought:
    """A thinking block under way."""

    __slots__ = ("block", "signatures", "texts")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.texts = [str(block.get("thinking", ""))]
        self.signatures = [str(block.get("signature", ""))]


class AnthropicReader:
    """One stream. See `server.dialects.base.Reader`."""

    __slots__ = (
        "_asked",
        "_calls",
        "_citations",
        "_counts",
        "_details",
        "_finished",
        "_head",
        "_open",
        "_started",
        "_tail",
        "_text",
        "done",
        "usage",
    )

    def __init__(self, asked: Asked) -> None:
        self.usage: Usage | None = None
        self.done = False
        self._asked = asked
        self._counts = Counts()
        self._started = False
        self._finished = False
        self._calls = 0
        self._details = 0
        self._citations = 0
        #: Characters of the text until now.
        self._text = 0
        #: Blocks under way by their index; those that are passed over are not in it.
        self._open: dict[int, _Call | _Text | _Thought] = {}
        head = _encode(
            {
                "id": asked.id,
                "object": "chat.completion.chunk",
                "created": asked.created,
                "model": asked.model,
            }
        )
        self._head = head[:-1] + b',"choices":[{"index":0,"delta":'
        self._tail = b',"logprobs":null,"finish_reason":null}]}'

    def feed(self, event: str | None, payload: bytes) -> Sequence[bytes]:
        if self.done or payload == LAST:  # not theirs, but some who speak like them end so
            return _NOTHING
        said = _decoded(payload)
        kind = said.type or event
        if kind == "content_block_delta":
            return self._delta(said.index, said.delta) if said.delta is not None else _NOTHING
        if kind == "content_block_start":
            return self._start(said.index, said.content_block)
        if kind == "content_block_stop":
            return self._stop(said.index)
        if kind == "message_start":
            if said.message is not None and said.message.usage is not None:
                self._count(said.message.usage)
            return self._role()
        if kind == "message_delta":
            return self._end(said)
        if kind == "message_stop":
            return self._last()
        if kind == "error":
            raise error_of(said.error)
        return _NOTHING  # `ping`, and what is not known yet

    def _delta(self, index: int, delta: _Delta) -> Sequence[bytes]:
        kind = delta.type
        if kind == "text_delta":
            return self._wrote(delta.text) if delta.text else _NOTHING
        under_way = self._open.get(index)
        if kind == "input_json_delta":
            if not isinstance(under_way, _Call) or not delta.partial_json:
                return _NOTHING
            under_way.told = True
            return self._argued(under_way, _encode(delta.partial_json))
        if kind == "thinking_delta" and delta.thinking:
            if isinstance(under_way, _Thought):
                under_way.texts.append(delta.thinking)
            return self._told(b'{"reasoning_content":', delta.thinking)
        if kind == "signature_delta" and isinstance(under_way, _Thought):
            under_way.signatures.append(delta.signature)
        if kind == "citations_delta" and isinstance(under_way, _Text):
            under_way.cited.append(delta.citation)
        return _NOTHING

    def _start(self, index: int, said: Raw) -> Sequence[bytes]:
        try:
            kind = _kind.decode(said).type
            if kind == "text":
                block = _block.decode(said)
                self._open[index] = _Text(self._text, block.citations)
                return self._wrote(block.text) if block.text else _NOTHING
            if kind == "tool_use":
                return self._call(index, _block.decode(said))
            if kind == "thinking":
                thought = self._open[index] = _Thought(_members.decode(said))
                text = thought.texts[0]
                return self._told(b'{"reasoning_content":', text) if text else _NOTHING
            if kind == "redacted_thinking":
                return self._detailed(_members.decode(said))
        except UNREADABLE as error:
            raise _no_event(str(error)) from None
        return _NOTHING

    def _call(self, index: int, block: Block) -> Sequence[bytes]:
        call = self._open[index] = _Call(self._calls, block)
        self._calls += 1
        function = {"name": block.name, "arguments": ""}
        told = {"index": call.index, "id": block.id, "type": "function", "function": function}
        return self._chunk(_encode({"tool_calls": [told]}))

    def _stop(self, index: int) -> Sequence[bytes]:
        under_way = self._open.pop(index, None)
        if isinstance(under_way, _Call):
            # A tool without parameters gets no deltas, or empty ones; "" is no JSON for clients.
            if under_way.told:
                return _NOTHING
            return self._argued(under_way, _encode(under_way.input.decode()))
        if isinstance(under_way, _Thought):
            if not (signature := "".join(under_way.signatures)):
                return _NOTHING
            whole = {"thinking": "".join(under_way.texts), "signature": signature}
            return self._detailed({**under_way.block, **whole})
        if isinstance(under_way, _Text):
            return self._cited(under_way)
        return _NOTHING

    def _end(self, said: _Event) -> Sequence[bytes]:
        if said.usage is not None:
            self._count(said.usage)
        delta = said.delta
        if delta is None or delta.stop_reason is None or self._finished:
            return _NOTHING
        refused = delta.stop_reason == "refusal"
        told = {"refusal": refusal_of(delta.stop_details)} if refused else {}
        return self._finish(
            _encode(told), FINISH.get(delta.stop_reason, "stop"), delta.stop_sequence
        )

    def _last(self) -> Sequence[bytes]:
        if not self._finished:
            raise broken_off()
        out: list[bytes] = []
        if self._asked.wants_usage and (shown := self._counts.shown()) is not None:
            # The head ends with `"choices":[{"index":0,"delta":`.
            head = self._head[: self._head.rindex(b"[{")]
            out.append(head + b'[],"usage":' + _encode(shown) + b"}")
        self.done = True
        return [*out, LAST]

    def _finish(self, delta: bytes, reason: str, text: Any) -> Sequence[bytes]:
        """`text`: the one of `stop` that ended it."""
        self._finished = True
        tail = b',"logprobs":null,"finish_reason":"' + reason.encode() + b'"'
        if isinstance(text, str):
            tail += b',"stop_reason":' + _encode(text)
        tail += b"}]"
        if (tier := self._counts.tier()) is not None:
            tail += b',"service_tier":' + _encode(tier)
        return [*self._role(), self._head + delta + tail + b"}"]

    def _role(self) -> Sequence[bytes]:
        if self._started:
            return _NOTHING
        self._started = True
        return (self._head + b'{"role":"assistant","content":""}' + self._tail,)

    def _wrote(self, text: str) -> Sequence[bytes]:
        self._text += len(text)
        return self._told(b'{"content":', text)

    def _told(self, prefix: bytes, text: str) -> Sequence[bytes]:
        return self._chunk(prefix + _encode(text) + b"}")

    def _argued(self, call: _Call, text: bytes) -> Sequence[bytes]:
        return self._chunk(call.prefix + text + b"}}]}")

    def _detailed(self, block: dict[str, Any]) -> Sequence[bytes]:
        detail = {"index": self._details, **place(self._text, self._calls), **block}
        self._details += 1
        return self._chunk(_encode({"reasoning_details": [detail]}))

    def _cited(self, block: _Text) -> Sequence[bytes]:
        found = cited(block.cited, block.start, self._text, self._citations)
        self._citations += len(found)
        return self._chunk(_encode({"citations": found})) if found else _NOTHING

    def _chunk(self, delta: bytes) -> Sequence[bytes]:
        chunk = self._head + delta + self._tail
        return (chunk,) if self._started else (*self._role(), chunk)

    def _count(self, said: dict[str, Any]) -> None:
        self._counts.add(said)
        self.usage = self._counts.usage()


def _decoded(payload: bytes) -> _Event:
    try:
        return _event.decode(payload)
    except UNREADABLE as error:
        detail = str(error)
    try:  # an event that is not known yet may have anything in it
        said = _kind.decode(payload)
    except UNREADABLE:
        said = None
    if said is None or said.type in _KNOWN:
        raise _no_event(detail)
    return _Event(type=said.type)


def _no_event(detail: str) -> UpstreamProtocol:
    return UpstreamProtocol("The upstream sent something that is no event.", detail=detail)
