"""Thoughts within the text: `<think>…</think>` at the beginning of a content becomes OpenAI's
`reasoning_content`.

Servers that do not know their model's way of thinking hand its words on as they come: vLLM and
llama.cpp without a reasoning parser, Ollama, some of those behind Hugging Face's router. Tags count
only where a content begins; a model that writes of tags is not thinking.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects.base import Asked, Dialect, Outgoing, Reader
from server.dialects.openai import Facts, Usage
from server.dialects.shapes import UNREADABLE
from server.errors import UpstreamProtocol, UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.request import Request
from server.protocol.sse import LAST

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
_SPACE: Final = " \t\r\n"
#: More blanks than this begin no thought.
_BLANKS: Final = 1024
#: A choice that may not have been seen yet.
_FURTHER: Final = re.compile(rb'"index"\s*:\s*[1-9]')
_NULL: Final = Raw(b"null")
_NOTHING: Final = Raw(b'""')
_object: Final = msgspec.json.Decoder(dict[str, Raw])
_choices: Final = msgspec.json.Decoder(list[dict[str, Raw]] | None)
_inner: Final = msgspec.json.Decoder(dict[str, Raw] | None)
_index: Final = msgspec.json.Decoder(int)
_string: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.Encoder().encode


class _At(enum.Enum):
    """Where the text of one choice stands."""

    START = enum.auto()  # nothing but blanks, and perhaps half a tag
    OPENED = enum.auto()  # in a thought, of which nothing is told yet
    THOUGHT = enum.auto()
    CLOSED = enum.auto()  # behind it, before the answer's first word
    ANSWER = enum.auto()


class Splitter:
    """One choice's content, in pieces as they come, cut anywhere."""

    __slots__ = ("_at", "_begun", "_held")

    def __init__(self, *, begun: bool = False) -> None:
        """`begun`: the content begins within a thought, whether a tag opens it or not."""
        self._at = _At.START
        self._begun = begun
        #: What may be the beginning of a tag.
        self._held = ""

    @property
    def answering(self) -> bool:
        """All that comes from here on is the answer."""
        return self._at is _At.ANSWER

    @property
    def untouched(self) -> bool:
        return self._at is _At.START and not self._held

    def feed(self, piece: str) -> tuple[str, str]:
        """What is new of the thought, and of the answer."""
        if self._at is _At.ANSWER or not piece:
            return "", piece
        text, self._held = self._held + piece, ""
        if self._at is _At.START:
            text = self._started(text)
        if self._at is _At.OPENED:
            text = text.lstrip(_SPACE)
            if text:
                self._at = _At.THOUGHT
        thought = ""
        if self._at is _At.THOUGHT:
            thought, text = self._thinking(text)
        if self._at is _At.CLOSED:
            text = text.lstrip(_SPACE)
            if text:
                self._at = _At.ANSWER
        return thought, text

    def end(self) -> tuple[str, str]:
        """What was held back, now that nothing follows: half a tag is none."""
        held, self._held = self._held, ""
        at, self._at = self._at, _At.ANSWER
        if at is _At.START and self._begun:
            return held.lstrip(_SPACE), ""
        return (held, "") if at is _At.THOUGHT else ("", held)

    def _started(self, text: str) -> str:
        """The rest, once it is known what it begins with."""
        rest = text.lstrip(_SPACE)
        if len(text) - len(rest) > _BLANKS and not self._begun:
            self._at = _At.ANSWER
        elif rest.startswith(OPEN):
            self._at = _At.OPENED
            return rest[len(OPEN) :]
        elif OPEN.startswith(rest):
            # Blanks before a thought that has begun are nothing, whatever follows.
            self._held = rest if self._begun else text
            return ""
        elif self._begun:
            self._at = _At.OPENED
        else:
            self._at = _At.ANSWER
        return text

    def _thinking(self, text: str) -> tuple[str, str]:
        end = text.find(CLOSE)
        if end >= 0:
            self._at = _At.CLOSED
            return text[:end], text[end + len(CLOSE) :]
        for length in range(min(len(CLOSE) - 1, len(text)), 0, -1):
            if text.endswith(CLOSE[:length]):
                self._held = text[-length:]
                return text[:-length], ""
        return text, ""


# --- answers


def split_whole(payload: bytes, *, begun: bool = False) -> bytes:
    """A chat's whole answer with its thoughts apart; all else as it was."""
    if b"think" not in payload and not begun:
        return payload
    answer, choices = _read(payload)
    changed = False
    for choice in choices:
        message = _inside(choice, "message")
        content = _text(message, "content")
        if content is None:
            continue
        splitter = Splitter(begun=begun and not _has_thoughts(message))
        thought, text = splitter.feed(content)
        more, rest = splitter.end()
        changed |= _put(choice, "message", message, content, thought + more, text + rest)
    return _written(answer, choices) if changed else payload


class SplitReader:
    """Another reader's stream, with the thoughts apart (see `dialects.base.Reader`). What cannot
    hold any passes as the bytes that it is."""

    __slots__ = ("_answering", "_begun", "_head", "_inner", "_splitters", "done", "usage")

    def __init__(self, inner: Reader, *, begun: bool = False) -> None:
        self.usage: Usage | None = None
        self.done = False
        self._inner = inner
        self._begun = begun
        self._splitters: dict[int, Splitter] = {}
        #: All choices that were seen are at their answers, and the first was.
        self._answering = False
        #: The last chunk's id and the like.
        self._head: dict[str, Raw] = {}

    def feed(self, event: str | None, payload: bytes) -> Sequence[bytes]:
        inner = self._inner
        try:
            made = inner.feed(event, payload)
        finally:
            self.usage, self.done = inner.usage, inner.done
        if self._answering and not any(_FURTHER.search(chunk) for chunk in made):
            return made
        return [out for chunk in made for out in self._chunk(chunk)]

    def _chunk(self, payload: bytes) -> list[bytes]:
        if payload == LAST:
            return [*self._rest(), LAST]
        chunk, choices = _read(payload)
        changed = False
        for choice in choices:
            changed |= self._choice(choice)
        self._answering = 0 in self._splitters and all(
            splitter.answering for splitter in self._splitters.values()
        )
        if not self._answering:
            self._head = {name: chunk[name] for name in chunk if name not in ("choices", "usage")}
        return [_written(chunk, choices) if changed else payload]

    def _choice(self, choice: dict[str, Raw]) -> bool:
        index = _number(choice.get("index"))
        delta = _inside(choice, "delta")
        splitter = self._splitters.get(index)
        if splitter is None:
            splitter = self._splitters[index] = Splitter(begun=self._begun)
        if self._begun and splitter.untouched and _has_thoughts(delta):
            self._splitters[index] = splitter = Splitter()
        content = _text(delta, "content")
        thought, text = splitter.feed(content or "")
        if choice.get("finish_reason", _NULL) != _NULL:
            more, rest = splitter.end()
            thought, text = thought + more, text + rest
        return _put(choice, "delta", delta, content or "", thought, text)

    def _rest(self) -> list[bytes]:
        """What was held back of choices that have no end."""
        out = []
        for index, splitter in self._splitters.items():
            thought, text = splitter.end()
            delta = {"reasoning_content": thought} if thought else {"content": text}
            if thought or text:
                choice = {"index": index, "delta": delta, "finish_reason": None}
                out.append(_encode({**self._head, "choices": [choice]}))
        return out


def _read(payload: bytes) -> tuple[dict[str, Raw], list[dict[str, Raw]]]:
    try:
        answer = _object.decode(payload)
        return answer, _choices.decode(answer.get("choices", _NULL)) or []
    except UNREADABLE as error:
        raise _no_answer(str(error)) from None


def _written(answer: dict[str, Raw], choices: list[dict[str, Raw]]) -> bytes:
    return _encode({**answer, "choices": choices})


def _inside(choice: dict[str, Raw], part: str) -> dict[str, Raw]:
    try:
        return _inner.decode(choice.get(part, _NULL)) or {}
    except UNREADABLE as error:
        raise _no_answer(str(error)) from None


def _text(inner: dict[str, Raw], name: str) -> str | None:
    """A string; None where it is none: a list of parts is nobody's who thinks in tags."""
    said = inner.get(name, _NULL)
    if bytes(memoryview(said)[:1]) != b'"':
        return None
    try:
        return _string.decode(said)
    except UNREADABLE as error:
        raise _no_answer(str(error)) from None


def _number(said: Raw | None) -> int:
    try:
        return 0 if said is None else _index.decode(said)
    except UNREADABLE as error:
        raise _no_answer(str(error)) from None


def _has_thoughts(inner: dict[str, Raw]) -> bool:
    """The server has told them apart itself."""
    names = ("reasoning_content", "reasoning")
    return any(inner.get(name, _NULL) not in (_NULL, _NOTHING) for name in names)


def _put(
    choice: dict[str, Raw], part: str, inner: dict[str, Raw], was: str, thought: str, text: str
) -> bool:
    """Put what was found into the choice. False: it is as it was."""
    if text == was and not thought:
        return False
    said: dict[str, Any] = dict(inner)
    if thought:
        said["reasoning_content"] = (_text(inner, "reasoning_content") or "") + thought
    if text or not thought or part == "message":
        said["content"] = text
    else:
        said.pop("content", None)
    choice[part] = Raw(_encode(said))
    return True


def _no_answer(detail: str) -> UpstreamProtocol:
    return UpstreamProtocol("The upstream sent something that is no answer.", detail=detail)


# --- dialects


class Thinking:
    """A dialect whose servers leave thoughts in the text. See `dialects.base.Dialect`."""

    def __init__(self, inner: Dialect, *, begun: bool = False) -> None:
        self.name = inner.name
        self.lacks = inner.lacks
        self._inner = inner
        self._begun = begun

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        return self._inner.request_out(
            request, model=model, members=members, drop=drop, settings=settings
        )

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        answer, facts = self._inner.answer_in(payload, asked)
        if asked.surface is not Surface.CHAT or facts.error is not None:
            return answer, facts
        return split_whole(answer, begun=self._begun), facts

    def reader(self, asked: Asked) -> Reader:
        inner = self._inner.reader(asked)
        if asked.surface is not Surface.CHAT:
            return inner
        return SplitReader(inner, begun=self._begun)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        return self._inner.error_in(status, body)
