"""What providers' lists of models say, as cards for an overlay. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from server.dialects.models import Listed, listed

Card = dict[str, Any]

_ABSENT: Final = "The provider's list of models does not say."
_NO_MORE: Final = "The provider's list of models does not say more."
_GROUPS: Final = ("licence", "origin", "api_endpoint", "specs", "cost", "abilities")
_FROM_ID: Final = "The list does not say what it does; this is what its id says."
_ASSUMED: Final = "The list does not say what it does; chat is assumed."
#: Words of ids that name a type; the first that is met counts.
_ID_WORDS: Final = (
    (re.compile(r"rerank"), "rerank"),
    (re.compile(r"embed"), "embedding"),
    (re.compile(r"whisper|transcri|\btts\b|speech|\baudio\b|realtime"), "audio"),
    (re.compile(r"dall-e|\bimage\b|\bsora\b"), "image"),
    (re.compile(r"moderation"), "classification"),
    (re.compile(r"\bocr\b"), "vision"),
)


def cards(found: Iterable[Any], provider: str) -> list[Card]:
    """The models of a list, as a file of cards has them, in the list's order."""
    return [_card(one, provider) for one in listed(found)]


def _card(one: Listed, provider: str) -> Card:
    kind, why = (one.type.value, None) if one.type is not None else _guessed(one.id)
    card: Card = {
        "model_id": one.id,
        "name": one.name or one.id,
        "type": kind,
        "description": _description(one, provider),
    }
    _put(card, "specs", _specs(one))
    _put(card, "cost", _cost(one))
    _put(card, "abilities", dict(one.abilities))
    _put(card, "default_temperature", one.temperature)
    _put(card, "aliases", list(one.names))
    if one.deprecated:
        card["status"] = "deprecated"
        _put(card, "retires", one.retires)
        _put(card, "replaced_by", one.replaced_by)
    card["exceptions"] = {group: _NO_MORE if group in card else _ABSENT for group in _GROUPS}
    _put(card["exceptions"], "type", why)
    return card


def _put(card: Card, key: str, value: Any) -> None:
    if value not in (None, {}, []):
        card[key] = value


def _guessed(model_id: str) -> tuple[str, str]:
    """The type that an id tells of, and why it is none of the list's own words."""
    name = model_id.lower()
    for words, kind in _ID_WORDS:
        if words.search(name):
            return kind, _FROM_ID
    return "chat", _ASSUMED


def _description(one: Listed, provider: str) -> str:
    if one.description is None:
        return f"On {provider}'s list of models, which does not describe it."
    return one.description if one.description.endswith(".") else f"{one.description}."


def _specs(one: Listed) -> dict[str, Any]:
    found: dict[str, Any] = {}
    _put(found, "context_window", one.context_window)
    _put(found, "max_output", one.max_output)
    _put(found, "input_modalities", list(one.input_modalities))
    _put(found, "output_modalities", list(one.output_modalities))
    return found


def _cost(one: Listed) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for fact in ("input", "cached_input", "output"):
        _put(found, fact, getattr(one.prices, fact))
    _put(found, "notes", one.prices.note)
    return found
