"""What providers' lists of models say, as cards for an overlay. Pure.

Every list says other things: OpenAI's and DeepSeek's the ids alone, Mistral's abilities, windows,
aliases and ends, Anthropic's and Cohere's abilities and windows, Hugging Face's router who serves
a model at what price. What a list does not say stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any, Final

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
_WINDOWS: Final = (
    "max_context_length",  # Mistral
    "max_input_tokens",  # Anthropic
    "context_length",  # Cohere, OpenRouter, Together
    "context_window",  # Groq
    "max_model_len",  # vLLM
)
_MODALITIES: Final = frozenset({"text", "image", "audio", "video", "file"})


class NoList(ValueError):
    """The answer is JSON, but no list of models."""


def entries(answer: Any) -> list[Any]:
    """The models of one answer. Raises NoList."""
    if isinstance(answer, Mapping):
        answer = next((answer[key] for key in ("data", "models") if key in answer), None)
    if not isinstance(answer, list):
        raise NoList
    return answer


def next_page(answer: Any) -> dict[str, str] | None:
    """What to ask for after this page: Anthropic's `after_id`, Cohere's `page_token`."""
    if not isinstance(answer, Mapping):
        return None
    if answer.get("has_more") is True and (last := _text(answer.get("last_id"))):
        return {"after_id": last}
    if token := _text(answer.get("next_page_token"), 4096):
        return {"page_token": token}
    return None


def cards(listed: Iterable[Any], provider: str) -> list[Card]:
    """The models of a list, as a file of cards has them, in the list's order. Mistral lists a
    model once for each of its names; here it comes once."""
    found: dict[str, Card] = {}
    maps = [entry for entry in listed if isinstance(entry, Mapping)]
    ids = {listed_id for entry in maps if (listed_id := _text(entry.get("id")))}
    for entry in maps:
        card = _card(entry, provider, ids)
        if card is None:
            continue
        earlier = found.setdefault(card["model_id"], card)
        if earlier is not card:
            names = (*earlier.get("aliases", ()), *card.get("aliases", ()))
            _put(earlier, "aliases", list(dict.fromkeys(names)) or None)
    return list(found.values())


def _card(entry: Mapping[str, Any], provider: str, ids: Collection[str]) -> Card | None:
    """None for what has no usable id. `ids`: of the whole list."""
    listed_id = _text(entry.get("id")) or _text(entry.get("name"))
    if listed_id is None:
        return None
    names = [listed_id, *(name for a in _list(entry.get("aliases")) if (name := _text(a)))]
    own = _text(entry.get("name"))
    model_id = own if own is not None and (own in names or own in ids) else listed_id
    kind, why = _type(entry, model_id)
    card: Card = {
        "model_id": model_id,
        "name": _text(entry.get("display_name")) or own or model_id,
        "type": kind,
        "description": _description(entry, provider),
    }
    _put(card, "specs", _specs(entry))
    _put(card, "cost", _cost(entry))
    _put(card, "abilities", _abilities(entry))
    _put(card, "default_temperature", _number(entry.get("default_model_temperature")))
    _put(card, "aliases", list(dict.fromkeys(n for n in names if n != model_id)) or None)
    card |= _end(entry, model_id)
    card["exceptions"] = {group: _NO_MORE if group in card else _ABSENT for group in _GROUPS}
    _put(card["exceptions"], "type", why)
    return card


def _put(card: Card, key: str, value: Any) -> None:
    if value not in (None, {}):
        card[key] = value


def _description(entry: Mapping[str, Any], provider: str) -> str:
    said = _text(entry.get("description"), 500)
    if said is None:
        return f"On {provider}'s list of models, which does not describe it."
    return said if said.endswith(".") else f"{said}."


# --- what it does -----------------------------------------------------------------------------


def _type(entry: Mapping[str, Any], model_id: str) -> tuple[str, str | None]:
    """The type, and why it is none of the list's own words."""
    if (found := _type_said(entry)) is not None:
        return found, None
    name = model_id.lower()
    for words, kind in _ID_WORDS:
        if words.search(name):
            return kind, _FROM_ID
    return "chat", _ASSUMED


def _type_said(entry: Mapping[str, Any]) -> str | None:
    can = _map(entry.get("capabilities"))
    if "completion_chat" in can:  # Mistral
        order = (
            ("completion_chat", "multimodal" if can.get("vision") is True else "chat"),
            ("ocr", "vision"),
            ("moderation", "classification"),
            ("classification", "classification"),
            ("audio_transcription", "audio"),
            ("audio_speech", "audio"),
            ("completion_fim", "completion"),
        )
        return next((kind for ability, kind in order if can.get(ability) is True), None)
    if isinstance(can.get("image_input"), Mapping):  # Anthropic
        return "multimodal" if _supported(can, "image_input") else "chat"
    endpoints = _list(entry.get("endpoints"))  # Cohere
    if "chat" in endpoints:
        return "multimodal" if "vision" in _list(entry.get("features")) else "chat"
    for endpoint, kind in _ENDPOINTS:
        if endpoint in endpoints:
            return kind
    if isinstance(entry.get("providers"), list) and "architecture" in entry:  # the router
        return "multimodal" if "image" in _modalities(entry, "input") else "chat"
    return None


_ENDPOINTS: Final = (
    ("embed", "embedding"),
    ("embed_image", "embedding"),
    ("rerank", "rerank"),
    ("classify", "classification"),
    ("transcriptions", "audio"),
    ("generate", "completion"),
)


def _abilities(entry: Mapping[str, Any]) -> dict[str, bool]:
    can = _map(entry.get("capabilities"))
    found: dict[str, bool | None] = {}
    if can.get("completion_chat") is True:  # Mistral
        found = {"tools": _flag(can.get("function_calling")), "vision": _flag(can.get("vision"))}
    elif any(isinstance(value, Mapping) for value in can.values()):  # Anthropic
        found = {
            "vision": _supported(can, "image_input"),
            "json_schema": _supported(can, "structured_outputs"),
            "reasoning": _supported(can, "thinking"),
        }
    elif features := _list(entry.get("features")):  # Cohere
        # What is not among them may only have another name there.
        for ability, name in (("tools", "tools"), ("json_schema", "json_schema")):
            found[ability] = True if name in features else None
        for ability in ("vision", "reasoning", "logprobs"):
            found[ability] = True if ability in features else None
    elif serving := _live(entry):
        found = {
            "tools": _any(serving, "supports_tools"),
            "json_schema": _any(serving, "supports_structured_output"),
        }
        if modalities := _modalities(entry, "input"):
            found["vision"] = "image" in modalities
    return {ability: value for ability, value in found.items() if value is not None}


def _specs(entry: Mapping[str, Any]) -> dict[str, Any]:
    windows = [_count(entry.get(key)) for key in _WINDOWS]
    windows += [_count(one.get("context_length")) for one in _live(entry)]
    found: dict[str, Any] = {}
    _put(found, "context_window", max((w for w in windows if w is not None), default=None))
    most = entry.get("max_tokens") if "max_input_tokens" in entry else None  # Anthropic
    _put(found, "max_output", _count(most) or _count(entry.get("max_completion_tokens")))
    for way in ("input", "output"):
        _put(found, f"{way}_modalities", _modalities(entry, way) or None)
    return found


# --- what it costs ----------------------------------------------------------------------------


def _cost(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The router's cheapest provider; OpenRouter's prices are by the token."""
    priced = []
    for one in _live(entry):
        pricing = _map(one.get("pricing"))
        given, taken = _number(pricing.get("input")), _number(pricing.get("output"))
        if given is not None and taken is not None:
            priced.append((given, taken, _text(one.get("provider")) or "one of them"))
    if priced:
        given, taken, who = min(priced)
        note = f"The router's price at {who}, the cheapest of {len(priced)} that give one."
        return {"input": given, "output": taken, "notes": note}
    pricing = _map(entry.get("pricing"))
    found: dict[str, Any] = {}
    for fact, key in (("input", "prompt"), ("output", "completion")):
        if isinstance(pricing.get(key), str) and (price := _number(pricing[key])) is not None:
            found[fact] = round(price * 1e6, 6)
    return found


def _live(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Who serves it now, at Hugging Face's router."""
    return [
        one
        for one in _list(entry.get("providers"))
        if isinstance(one, Mapping) and one.get("status", "live") == "live"
    ]


# --- how it ends ------------------------------------------------------------------------------


def _end(entry: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    if (day := _day(entry.get("deprecation"))) is not None:  # Mistral: the day it stops
        found: dict[str, Any] = {"status": "deprecated", "retires": day}
        after = _text(entry.get("deprecation_replacement_model"))
        _put(found, "replaced_by", after if after != model_id else None)
        return found
    return {"status": "deprecated"} if entry.get("is_deprecated") is True else {}  # Cohere


# --- values -----------------------------------------------------------------------------------


def _modalities(entry: Mapping[str, Any], way: str) -> list[str]:
    said = _list(_map(entry.get("architecture")).get(f"{way}_modalities"))
    return [one for one in said if isinstance(one, str) and one in _MODALITIES]


def _supported(can: Mapping[str, Any], ability: str) -> bool | None:
    return _flag(_map(can.get(ability)).get("supported"))


def _any(serving: Iterable[Mapping[str, Any]], key: str) -> bool | None:
    said = [one[key] for one in serving if isinstance(one.get(key), bool)]
    return any(said) if said else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, most: int = 200) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= most or value != value.strip():
        return None
    return value if value.isprintable() else None


def _day(value: Any) -> str | None:
    """`YYYY-MM-DD`, of a day or of a moment."""
    day = (_text(value) or "")[:10]
    try:
        # Python would take `20261231`, too, and the first ten signs of something longer than that.
        return day if date.fromisoformat(day).isoformat() == day else None
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    """Tokens. Some lists write 0 for what they do not know; Cohere writes floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < 1e12 and value == int(value) else None


def _number(value: Any) -> float | None:
    """Dollars, or a temperature."""
    try:
        found = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found < 1e6 and not isinstance(value, bool) else None
