"""OpenAI's dialect as those speak it who follow it loosely: what clients refuse, or stumble over,
is put right.

Sources: reports of their users. Gemini leaves out the index of calls and the id of chunks, and
stops where it calls; Groq has tiers of its own; models at Together end with `eos`; Azure sends what
its filters found in chunks without a name, a choice or a delta; text-generation-webui says the role
with every word.
"""

from __future__ import annotations

from typing import Any, Final

from server.dialects import openai
from server.dialects.base import Asked, Reader
from server.dialects.openai import Facts
from server.dialects.plain import Plain
from server.dialects.tidy import Calls, TidyReader, number_call, whole
from server.protocol.envelope import Surface

#: What whole answers and chunks are called, and where a choice of them has what is new.
_WHOLE: Final = {
    Surface.CHAT: ("chat.completion", "message"),
    Surface.COMPLETIONS: ("text_completion", None),
}
_CHUNK: Final = {
    Surface.CHAT: ("chat.completion.chunk", "delta"),
    Surface.COMPLETIONS: ("text_completion", None),
}
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast", None)
_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_FINISHED: Final = {
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
}
_FILTERED: Final = "content_filter"
_NAMES: Final = ("id", "created", "model")
#: Members of a chunk that say nothing by themselves.
_FRAME: Final = frozenset(
    {*_NAMES, "object", "choices", "usage", "service_tier", "system_fingerprint"}
)


class Loose(Plain):
    """See `dialects.base.Dialect`. Requests go out as they are."""

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        if asked.surface not in _WHOLE:
            return payload, openai.answer_in(payload)
        kind, part = _WHOLE[asked.surface]
        return whole(payload, _Fix(whole=True), part=part, around=_Frame(asked, kind))

    def reader(self, asked: Asked) -> Reader:
        kind, part = _CHUNK.get(asked.surface, _CHUNK[Surface.CHAT])
        return TidyReader(asked, _Fix(), part=part, signs=None, around=_Frame(asked, kind))


class _Fix:
    """Puts the choices of one answer or one stream right."""

    __slots__ = ("_calls", "_whole")

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        #: Of each choice.
        self._calls: dict[int, Calls] = {}

    def __call__(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        known = self._calls.setdefault(choice["index"], Calls())
        calls = part.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and self._whole:
                known.begin(known.next, "")
                call["type"] = call.get("type") or "function"
            elif isinstance(call, dict):
                number_call(call, known)
        reason = choice.get("finish_reason")
        if reason is None:
            if self._whole:
                choice["finish_reason"] = "tool_calls" if known.next else "stop"
            return
        reason = reason_of(reason)
        choice["finish_reason"] = "tool_calls" if known.next and reason == "stop" else reason


def reason_of(said: str) -> str:
    """OpenAI's word for it, where it is known what it means."""
    if said in _REASONS:
        return said
    lower = said.lower()
    return _FILTERED if lower.startswith(_FILTERED) else _FINISHED.get(lower, said)


class _Frame:
    """Puts right what stands around the choices: one name for all chunks of a stream. What a chunk
    without choices says of the prompt goes on with the next one that has some."""

    __slots__ = ("_asked", "_held", "_kind", "_name")

    def __init__(self, asked: Asked, kind: str) -> None:
        self._asked, self._kind = asked, kind
        self._name: dict[str, Any] = {}
        self._held: dict[str, Any] = {}

    def __call__(self, answer: dict[str, Any]) -> None:
        if answer.get("service_tier") not in _TIERS:
            del answer["service_tier"]
        if not answer.get("choices") and not self._name:
            said = {name: value for name, value in answer.items() if name not in _FRAME}
            self._held |= {name: value for name, value in said.items() if value is not None}
            return
        if not self._name:
            given = {name: answer[name] for name in _NAMES if _is_name(name, answer.get(name))}
            asked = self._asked
            self._name = {"id": asked.id, "created": asked.created, "model": asked.model, **given}
            for name, value in self._held.items():
                answer.setdefault(name, value)
        answer.update(self._name)
        answer["object"] = self._kind


def _is_name(name: str, value: Any) -> bool:
    """Zero is no time, and nothing is no name."""
    kind = int if name == "created" else str
    return bool(value) and isinstance(value, kind) and not isinstance(value, bool)
