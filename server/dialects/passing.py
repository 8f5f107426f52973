"""Requests of dialects that are OpenAI's but for some quirks: what is not known passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects import bounds
from server.dialects.openai import ENGINE_ONLY
from server.errors import InvalidRequest
from server.protocol.envelope import Surface, raw
from server.protocol.parameters import given
from server.protocol.request import Request

#: What answers of ours have besides OpenAI's members, for the dialect that they came from: those
#: that nobody else knows, and all of them. Clients send them back, and some refuse what they do not
#: know.
FOREIGN: Final = ("citations", "content_parts", "reasoning_details", "tool_plan")
BESIDES: Final = (*FOREIGN, "reasoning", "reasoning_content")
_STREAMING: Final = frozenset({Surface.CHAT, Surface.COMPLETIONS})
_options: Final = msgspec.json.Decoder(dict[str, Raw])
_messages: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_ASSISTANT: Final = Raw(b'"assistant"')
_NOTHING: Final = (Raw(b"null"), Raw(b'""'), Raw(b"[]"))


def passed(
    request: Request, members: Mapping[str, object], *, model: str, drop: frozenset[str]
) -> tuple[dict[str, Any], list[str]]:
    """The members with the provider's own model id, without those that only an engine's owner may
    set and those of `drop`, and with usage asked for in a stream; and the names of what went."""
    dropped = [name for name in members if name in ENGINE_ONLY or name in drop]
    out: dict[str, Any] = {name: members[name] for name in members if name not in dropped}
    out["model"] = model
    if request.stream and not request.wants_usage and request.surface in _STREAMING:
        out["stream_options"] = raw({**_known_options(out), "include_usage": True})
    return out, dropped


def plain_history(
    messages: object, names: tuple[str, ...] = FOREIGN
) -> tuple[object, tuple[str, ...]]:
    """The messages (as JSON) without these members of the assistant's, and which of them went, as
    `messages.<name>`. Those without a sign of one are not looked into, and what are no messages is
    not ours to judge. Raises InvalidRequest for more than are taken apart."""
    if not isinstance(messages, Raw):
        return messages, ()
    text = bytes(messages)
    names = tuple(name for name in names if b'"%s"' % name.encode() in text)
    if not names:
        return messages, ()
    bounds.check(messages, "messages")
    try:
        found = _messages.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return messages, ()
    lost: dict[str, None] = {}
    for message in found:
        if message.get("role") == _ASSISTANT:
            for name in names:
                if message.pop(name, _NOTHING[0]) not in _NOTHING:
                    lost[f"messages.{name}"] = None
    return raw(found), tuple(lost)


def _known_options(members: Mapping[str, Any]) -> dict[str, Raw]:
    options = given(members, "stream_options")
    try:
        return _options.decode(options) if options is not None else {}
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequest(
            "`stream_options` should be an object.", param="stream_options", code="invalid_type"
        ) from None


def no_surface(who: str, surface: Surface, others: str) -> InvalidRequest:
    """That this provider has nothing for such requests."""
    return InvalidRequest(
        f"{who} has no {surface.value}: use {others}.", param="model", code="unsupported_endpoint"
    )
