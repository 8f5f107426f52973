"""What an account and a model's card say to this dialect, and how a model thinks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from server.errors import InvalidRequest

#: The first version takes sampling parameters where the model does; the later one never does.
SAMPLING: Final = "2023-06-01"
Version = Literal["2023-06-01", "2026-10-21"]
#: Where instructions go that come later in a conversation: before all of it, or where they stand.
Later = Literal["top", "inline"]
#: `adaptive`: the model decides how much, guided by an effort. `budget`: a number of tokens.
Thinking = Literal["adaptive", "budget", "none"]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`max_tokens`: the longest answer where the client names none; Anthropic wants a number.
    `thinking`: how the model does it; None: as its id tells. `thinking_display`: what becomes of
    its words; None: as the provider likes. `later_system`: None: as the model's id tells."""

    version: Version = SAMPLING
    max_tokens: int | None = None
    thinking: Thinking | None = None
    thinking_display: Literal["summarized", "omitted"] | None = None
    later_system: Later | None = None


def settings_of(said: Mapping[str, object]) -> Settings:
    """Raises msgspec.ValidationError for what is none of them: the config's fault."""
    return msgspec.convert(said, Settings) if said else _NOTHING_SAID


_NOTHING_SAID: Final = Settings()
#: `claude-opus-4-6`, `claude-sonnet-4-5-20250929` and, the older way, `claude-3-7-sonnet-…`.
_VERSION: Final = re.compile(r"claude-(?:([a-z]+)-)?(\d+)(?:[.-](\d{1,2})(?!\d))?(?=[^\d]|$)")
#: The first ones that take instructions inside a conversation: of a family, and of all.
_INLINE_SINCE: Final = {"opus": (4, 8), "fable": (5, 0), "mythos": (5, 0)}
_ALL_INLINE_SINCE: Final = (5, 5)
_ADAPTIVE_SINCE: Final = (4, 6)
_BUDGET_SINCE: Final = (3, 7)


def thinking_of(model: str) -> Thinking:
    """How a model thinks, by the age that its id tells; an id that tells none is a new one."""
    found = _VERSION.search(model.lower())
    if found is None:
        return "adaptive"
    version = int(found[2]), int(found[3] or 0)
    if version >= _ADAPTIVE_SINCE:
        return "adaptive"
    return "budget" if version >= _BUDGET_SINCE else "none"


def later_of(model: str) -> Later:
    """Where a model takes later instructions, by its id; one that tells no age gets them on top.

    Newer models refuse thoughts behind instructions that changed, so that those on top must not."""
    found = _VERSION.search(model.lower())
    if found is None:
        return "top"
    since = min(_INLINE_SINCE.get(found[1] or "", _ALL_INLINE_SINCE), _ALL_INLINE_SINCE)
    return "inline" if (int(found[2]), int(found[3] or 0)) >= since else "top"


#: OpenAI's word → Anthropic's.
_EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
#: As Google's own OpenAI endpoint has it, and one step more.
_BUDGETS: Final = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 65536,
}
_LEAST_BUDGET: Final = 1024


def effort_into(
    body: dict[str, Any], effort: Any, settings: Settings, *, model: str, longest: int
) -> bool:
    """`reasoning_effort` as `thinking` and `output_config`. True: it was brought into what the
    provider has a word for. Raises InvalidRequest where the model has no such thing."""
    if not isinstance(effort, str) or (effort != "none" and effort not in _EFFORTS):
        raise InvalidRequest(
            f"`reasoning_effort` must be one of none, {', '.join(_EFFORTS)}.",
            param="reasoning_effort",
        )
    kind = settings.thinking or thinking_of(model)
    if effort == "none":
        if kind == "adaptive":  # the newer ones think unless they are told
            body.setdefault("thinking", {"type": "disabled"})
        return False
    if kind == "none":
        raise InvalidRequest(
            "This model does not reason: leave out `reasoning_effort`.",
            param="reasoning_effort",
            code="unsupported_parameter",
        )
    if kind == "adaptive":
        body.setdefault("thinking", _shown({"type": "adaptive"}, settings))
        body.setdefault("output_config", {})["effort"] = _EFFORTS[effort]
        return _EFFORTS[effort] != effort
    if longest <= _LEAST_BUDGET:
        raise InvalidRequest(
            f"With `reasoning_effort` this model needs `max_completion_tokens` over "
            f"{_LEAST_BUDGET}.",
            param="reasoning_effort",
        )
    # A quarter at least is for the answer, where that leaves enough to think at all.
    budget = max(_LEAST_BUDGET, min(_BUDGETS[effort], longest * 3 // 4))
    body.setdefault("thinking", _shown({"type": "enabled", "budget_tokens": budget}, settings))
    return False


def _shown(thinking: dict[str, Any], settings: Settings) -> dict[str, Any]:
    if settings.thinking_display is not None:
        thinking["display"] = settings.thinking_display
    return thinking
