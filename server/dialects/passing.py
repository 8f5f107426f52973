"""Requests of dialects that are OpenAI's but for some quirks: what is not known passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.dialects.openai import ENGINE_ONLY
from server.errors import InvalidRequest
from server.protocol.envelope import Surface, raw
from server.protocol.parameters import given
from server.protocol.request import Request

_STREAMING: Final = frozenset({Surface.CHAT, Surface.COMPLETIONS})
_options: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


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


def _known_options(members: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
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
