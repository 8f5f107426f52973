"""Answers and streams in OpenAI's shape, nearly: what several providers get wrong, put right.

An event without a sign of anything wrong is handed on as the bytes that it came in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from server.dialects.base import Asked
from server.dialects.openai import Facts, Usage, answer_in, error_of_event
from server.dialects.shapes import UNREADABLE
from server.errors import UpstreamAborted, UpstreamProtocol
from server.protocol.sse import LAST

#: Puts one choice right, in place; `part` is its `message` or its `delta`.
Fix = Callable[[dict[str, Any], dict[str, Any]], None]
#: Puts what stands around the choices right, in place.
Around = Callable[[dict[str, Any]], None]

_ROLE: Final = b'"role"'
#: Reasons to finish that are none. The last one is DeepSeek's, when it is overloaded.
_GAVE_UP: Final = ("abort", "error", "insufficient_system_resource")
#: An object of counts, or an end that is an error; `null` is neither.
_ALWAYS: Final = (b'"usage":{', b'"usage": {', *(f'"{word}"'.encode() for word in _GAVE_UP))
_object: Final = msgspec.json.Decoder(dict[str, Any])


def decoded(payload: bytes) -> dict[str, Any]:
    """A JSON object. Blank lines before it, which keep a connection alive, are passed over."""
    try:
        return _object.decode(payload)
    except UNREADABLE as error:
        raise UpstreamProtocol(
            "The upstream sent something that is no answer.", detail=str(error)
        ) from None


def choices_of(
    answer: dict[str, Any], part: str | None
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The choices of an answer or a chunk, each with its `message` or `delta`, or with itself where
    it has none."""
    choices = answer.get("choices")
    found = []
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict) or not _is_sound(choice):
            raise UpstreamProtocol("The upstream sent something that is no answer.")
        inner = choice if part is None else choice.get(part)
        if not isinstance(inner, dict):
            inner = choice[part] = {}
        found.append((choice, inner))
    return found


def _is_sound(choice: dict[str, Any]) -> bool:
    index, reason = choice.setdefault("index", 0), choice.get("finish_reason")
    return isinstance(index, int) and (reason is None or isinstance(reason, str))


def whole(
    payload: bytes,
    fix: Fix,
    *,
    part: str | None = "message",
    extra: frozenset[str] = frozenset(),
    around: Around | None = None,
) -> tuple[bytes, Facts]:
    """A whole answer, put right, without the members of `extra`."""
    answer = decoded(payload)
    if answer.get("object") == "error":  # an error in an answer's clothes
        raise error_of_event(answer.get("error") or answer)
    if around is not None:
        around(answer)
    for choice, message in choices_of(answer, part):
        fix(choice, message)
        _check(choice)
    for name in extra & answer.keys():
        del answer[name]
    if isinstance(answer.get("usage"), dict):
        answer["usage"] = counted(answer["usage"])
    out = msgspec.json.encode(answer)
    return out, answer_in(out)


def counted(usage: dict[str, Any]) -> dict[str, Any]:
    """`usage` with all its totals, and with what was cached where OpenAI has it."""
    out = {name: value for name, value in usage.items() if value is not None}
    prompt, completion = out.get("prompt_tokens"), out.get("completion_tokens")
    out.setdefault("prompt_tokens", 0)
    out.setdefault("completion_tokens", 0)
    if "total_tokens" not in out and isinstance(prompt, int):
        out["total_tokens"] = prompt + (completion if isinstance(completion, int) else 0)
    for name in ("num_cached_tokens", "prompt_cache_hit_tokens", "cached_tokens"):
        if "prompt_tokens_details" not in out and isinstance(out.get(name), int):
            out["prompt_tokens_details"] = {"cached_tokens": out[name]}
    return out


def _check(choice: dict[str, Any]) -> None:
    if (reason := choice.get("finish_reason")) in _GAVE_UP:
        raise UpstreamAborted("The upstream gave up on its answer.", detail=f"finished: {reason}")


class Calls:
    """The calls of one choice that have begun. `next`: over every index that there is."""

    __slots__ = ("_ids", "_indexes", "next")

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._indexes: dict[str, int] = {}
        self.next = 0

    def begin(self, index: int, identity: str) -> None:
        self._ids[index] = identity
        if identity:
            self._indexes.setdefault(identity, index)
        self.next = max(self.next, index + 1)

    def id_at(self, index: int) -> str | None:
        """None: there is no such call; empty: it has no id."""
        return self._ids.get(index)

    def index_of(self, identity: str | None) -> int:
        """Of the call with this id, which may be a new one; without an id the last."""
        if identity is None:
            return max(self.next - 1, 0)
        return self._indexes.get(identity, self.next)


def number_call(call: dict[str, Any], known: Calls) -> None:
    """A call in a stream, or more of one, which has an index then: an id and a name stand where it
    begins, and nowhere else. `known`: the choice's calls until now."""
    identity = call.get("id")
    if not isinstance(identity, str) or identity in ("", "null"):
        call.pop("id", None)
        identity = None
    index = call.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        index = known.index_of(identity)
    elif identity is not None and (known.id_at(index) or identity) != identity:
        index = known.index_of(identity)  # all have index 0 where Mistral tells none
    call["index"] = index
    function = call.get("function")
    if isinstance(function, dict):
        if not function.get("name"):
            function.pop("name", None)
        arguments = function.get("arguments")
        if isinstance(arguments, dict | list):
            function["arguments"] = msgspec.json.encode(arguments).decode()
    if (begun := known.id_at(index)) is None:
        known.begin(index, identity or "")
        call["type"] = "function"
        return
    if identity == begun:
        call.pop("id", None)
    if not call.get("type"):
        call.pop("type", None)


def is_object(payload: bytes) -> bool:
    """Does it begin and end as an object does? Tells what was cut off from what may pass unread."""
    text = payload.strip()
    return text.startswith(b"{") and text.endswith(b"}")


def nothing(_choice: dict[str, Any], _part: dict[str, Any]) -> None:
    """The fix for what is right as it is."""


class TidyReader:
    """One stream (see `dialects.base.Reader`): usage in an event of its own at the end, if it was
    asked for, and nowhere else; the role once; and what `fix` puts right."""

    __slots__ = (
        "_around",
        "_asked",
        "_extra",
        "_fix",
        "_head",
        "_part",
        "_roles",
        "_signs",
        "_told",
        "done",
        "usage",
    )

    def __init__(
        self,
        asked: Asked,
        fix: Fix,
        *,
        part: str | None = "delta",
        signs: tuple[bytes, ...] | None = (),
        extra: frozenset[str] = frozenset(),
        around: Around | None = None,
    ) -> None:
        """`part`: where a choice has what is new; None: in itself. `signs`: `fix` has something to
        do only where one of these stands; None: always. `extra`: members of chunks that go, where a
        chunk is looked into. `around`: for chunks that are no errors."""
        self.usage: Usage | None = None
        self.done = False
        self._asked = asked
        self._fix = fix
        self._part = part
        self._signs = None if signs is None else (_ROLE, *signs, *_ALWAYS)
        self._extra = extra
        self._around = around
        self._roles: set[int] = set()
        #: The last chunk's id and the like, for the event of the usage.
        self._head: dict[str, Any] = {}
        self._told: dict[str, Any] | None = None

    def feed(self, event: str | None, payload: bytes) -> list[bytes]:
        if self.done or not payload:
            return []
        if payload == LAST:
            self.done = True
            return [*self._count(), LAST]
        if (
            self._signs is not None
            and event != "error"
            and not self._is_odd(payload)
            and is_object(payload)
        ):
            return [payload]
        chunk = decoded(payload)
        if chunk.get("error") is not None or "error" in (event, chunk.get("object")):
            raise error_of_event(chunk.get("error") or chunk)
        if self._around is not None:
            self._around(chunk)
        self._look_at(chunk, payload)
        pairs = choices_of(chunk, self._part)
        for choice, delta in pairs:
            self._fix(choice, delta)
            _check(choice)
            if "role" in delta:
                self._say_role(choice["index"], delta)
        for name in self._extra & chunk.keys():
            del chunk[name]
        return [msgspec.json.encode(chunk)] if pairs else []

    def _is_odd(self, payload: bytes) -> bool:
        for sign in self._signs or ():  # noqa: SIM110 - a generator is slow, this is per token
            if sign in payload:
                return True
        return False

    def _say_role(self, index: int, delta: dict[str, Any]) -> None:
        if index in self._roles or delta["role"] is None:
            del delta["role"]
        else:
            self._roles.add(index)

    def _look_at(self, chunk: dict[str, Any], payload: bytes) -> None:
        """Take the usage out."""
        usage = chunk.pop("usage", None)
        if isinstance(usage, dict):
            self._told = counted(usage)
            self.usage = answer_in(payload).usage
            if self._asked.wants_usage:
                names = ("id", "object", "created", "model", "system_fingerprint")
                self._head = {name: chunk[name] for name in names if name in chunk}

    def _count(self) -> list[bytes]:
        if self._told is None or not self._asked.wants_usage:
            return []
        return [msgspec.json.encode({**self._head, "choices": [], "usage": self._told})]
