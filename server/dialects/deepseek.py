"""DeepSeek: OpenAI's dialect, with thoughts of its own.

Sources: its page on thinking (api-docs.deepseek.com/guides/thinking_mode), recorded traffic, and
errors as clients report them (deepseek-ai/DeepSeek-V3#1376).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects import bounds, openai
from server.dialects.base import Asked, Outgoing, Reader
from server.dialects.openai import Facts
from server.dialects.passing import no_surface, passed, plain_history
from server.dialects.tidy import TidyReader, nothing, whole
from server.errors import InvalidRequest, UpstreamStatus
from server.protocol.envelope import Surface, emit, raw
from server.protocol.parameters import given, number
from server.protocol.request import Request

_WHO: Final = "DeepSeek"
#: Without thinking, by its name; all others think unless they are told not to.
_NO_THINKING: Final = frozenset({"deepseek-chat"})
#: What DeepSeek takes and passes over while it thinks.
_PASSED_OVER: Final = ("temperature", "presence_penalty", "frequency_penalty")
_NONE: Final = Raw(b'"none"')
_SOUNDS: Final = frozenset({"input_audio", "audio_url"})
#: Of what a message may have to be told otherwise, or refused.
_SIGNS: Final = (b'"developer"', b'"reasoning"', b'"tool_calls"', b'"input_audio"', b'"audio_url"')
_BROKEN_OFF: Final = b'"insufficient_system_resource"'
_decode: Final = msgspec.json.decode


class DeepSeek:
    """See `dialects.base.Dialect`. It has no settings."""

    name = "deepseek"
    lacks = frozenset({"audio", "json_schema", "n"})

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        if request.surface is not Surface.CHAT:  # its completions are a beta at another base URL
            raise no_surface(_WHO, request.surface, "chat")
        out, dropped = passed(request, members, model=model, drop=drop)
        _refuse(out)
        said, passed_over = members_out(out, model=model)
        return Outgoing(openai.PATHS[Surface.CHAT], emit(said), dropped=(*dropped, *passed_over))

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        """Without the blank lines that DeepSeek sends ahead while it is busy. An answer that it
        broke off for want of resources is an error."""
        answer = payload.lstrip()
        if _BROKEN_OFF in answer:
            return whole(answer, nothing)
        return answer, openai.answer_in(answer)

    def reader(self, asked: Asked) -> Reader:
        """Usage rides on the last chunk, asked for or not."""
        return TidyReader(asked, nothing)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        return openai.error_in(status, body)


def _refuse(members: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what DeepSeek passes over, or refuses in words of its own."""
    n = given(members, "n")
    if n is not None and (number(n) or 1) > 1:
        raise _lacks("n", "`n` over 1")
    for name in ("audio", "modalities"):
        said = given(members, name)
        if said is not None and (name == "audio" or _value(said, name) != ["text"]):
            raise _lacks(name, f"`{name}`")
    wanted = given(members, "response_format")
    found = _value(wanted, "response_format") if wanted is not None else None
    if isinstance(found, dict) and found.get("type") == "json_schema":
        raise _lacks("response_format", "`json_schema`, only `json_object`")


def _refuse_sounds(content: Any, where: str) -> None:
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, dict):
            continue
        kind = part.get("type")  # anything
        if (isinstance(kind, str) and kind in _SOUNDS) or _SOUNDS & part.keys():
            raise _lacks(f"{where}[{index}]", "ear for sounds")


def _lacks(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{_WHO} has no {what}: leave it out, or let this model drop it.",
        param=param,
        code="unsupported_parameter",
    )


def _value(member: Any, name: str) -> Any:
    """None for what cannot be read, which is DeepSeek's to judge."""
    if isinstance(member, Raw):
        bounds.check(member, name)
    try:
        return _decode(member) if isinstance(member, Raw) else member
    except (msgspec.MsgspecError, RecursionError):
        return None


def members_out(
    members: Mapping[str, Any], *, model: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The members (as JSON) for DeepSeek, and the names of those that it would pass over.

    `reasoning_effort: none` is its `thinking`, and the longest answer has the one name it knows.
    """
    out = dict(members)
    if given(out, "reasoning_effort") == _NONE:
        del out["reasoning_effort"]
        out.setdefault("thinking", raw({"type": "disabled"}))
    if (longest := given(out, "max_completion_tokens")) is not None:
        del out["max_completion_tokens"]
        other = given(out, "max_tokens")
        if other is None or (number(longest) or 0) < (number(other) or 0):
            out["max_tokens"] = longest
    thinks = _thinks(out, model)
    if thinks and _forces(out):
        for name in ("reasoning_effort", "thinking"):
            if given(out, name) is not None:
                raise _lacks(name, f"`{name}` with a `tool_choice` that forces a call")
        # Thinking is its own idea, the call is the client's.
        out["thinking"], thinks = raw({"type": "disabled"}), False
    dropped = tuple(n for n in _PASSED_OVER if given(out, n) is not None) if thinks else ()
    for name in dropped:
        del out[name]
    if "messages" in out:
        messages, lost = plain_history(out["messages"])
        dropped += lost
        if isinstance(messages, Raw) and any(sign in bytes(messages) for sign in _SIGNS):
            messages, lost = history_out(messages, thinks=thinks)
            dropped += lost
        out["messages"] = messages
    return out, dropped


def _forces(members: Mapping[str, Any]) -> bool:
    """Must some tool be called? While it thinks DeepSeek refuses that."""
    said = given(members, "tool_choice")
    choice = _value(said, "tool_choice") if said is not None else None
    return choice == "required" or (isinstance(choice, dict) and choice.get("type") == "function")


def _thinks(members: Mapping[str, Any], model: str) -> bool:
    said = given(members, "thinking")
    found = _value(said, "thinking") if said is not None else None
    if isinstance(found, dict) and found.get("type") in ("enabled", "disabled"):
        return bool(found["type"] == "enabled")
    if said is not None and found is None:
        return True
    return model not in _NO_THINKING


def history_out(messages: Raw, *, thinks: bool) -> tuple[Raw, tuple[str, ...]]:
    """Messages as DeepSeek wants them back: `system` for `developer`, thoughts under its name for
    them, and where it thinks and a tool was called, thoughts in every answer: it refuses history
    without. Those of another model have none for it, and an empty text will do. Of two thoughts in
    one message the second is let go, and named.
    """
    bounds.check(messages, "messages")
    try:
        found = _decode(messages)
    except (msgspec.MsgspecError, RecursionError):
        return messages, ()
    lost: tuple[str, ...] = ()
    said = found if isinstance(found, list) else []
    called = any(isinstance(message, dict) and message.get("tool_calls") for message in said)
    for index, message in enumerate(said):
        if not isinstance(message, dict):
            continue
        _refuse_sounds(message.get("content"), f"messages[{index}].content")
        if message.get("role") == "developer":
            message["role"] = "system"
        if message.get("role") != "assistant":
            continue
        thought = message.pop("reasoning", None)
        if message.get("reasoning_content") is None:
            message.pop("reasoning_content", None)
            if isinstance(thought, str):
                message["reasoning_content"] = thought
            elif thinks and called:
                message["reasoning_content"] = ""
        if thought and thought != message.get("reasoning_content"):
            lost = ("messages.reasoning",)
    return raw(found), lost
