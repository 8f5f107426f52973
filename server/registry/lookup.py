"""Looking models up, in the catalog that Roundhouse comes with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.registry.cards import ModelInfo, ModelType
from server.registry.catalog import Catalog, builtin

_WORD: Final = re.compile(r"[a-z]+|\d+(?:\.\d+)*")


def get_model_info(name: str) -> ModelInfo:
    """The card of a model, by its id, an alias, `provider/id` or the last part of its id, in any
    case. Raises UnknownModel, a LookupError that says which names are near."""
    return builtin().info(name)


def list_models_by_provider(provider: str) -> list[ModelInfo]:
    """All cards of a provider (`openai`, `huggingface`, …), in the catalog's order. Raises
    LookupError for a provider without cards."""
    provider = provider.strip().lower()
    found = [card for card in builtin().values() if card.provider == provider]
    if not found:
        known = ", ".join(sorted({card.provider for card in builtin().values()}))
        raise LookupError(f"The registry has no provider {provider!r}. It has {known}.")
    return found


def list_models_by_type(type: ModelType | str) -> list[ModelInfo]:
    """All cards of a type. Raises ValueError for a type that is none."""
    try:
        wanted = ModelType(type)
    except ValueError:
        known = ", ".join(one.value for one in ModelType)
        raise ValueError(f"{type!r} is no type of model. Types: {known}.") from None
    return [card for card in builtin().values() if card.type is wanted]


def get_free_models() -> list[ModelInfo]:
    """Cards of models that cost nothing but the machine: open weights, or a free tier."""
    return [card for card in builtin().values() if card.free]


def get_local_models() -> list[ModelInfo]:
    """Cards of models whose weights can be had and run here."""
    return [card for card in builtin().values() if card.local]


def search_models(query: str, limit: int | None = None) -> list[ModelInfo]:
    """Cards that have every word of the query, the best first: a word in the id or an alias counts
    more than one in the name, the creator or the type, and those more than one in the
    description. Numbers must be met whole: `7b` finds no `70b`."""
    return search(builtin(), query, limit)


def search(catalog: Catalog, query: str, limit: int | None = None) -> list[ModelInfo]:
    """As `search_models`, in another catalog."""
    words = _WORD.findall(query.lower())
    if not words:
        return []
    ranked = []
    for place, card in enumerate(catalog.values()):
        if score := _score(card, query.strip().lower(), words):
            ranked.append((-score, place, card))
    ranked.sort(key=lambda entry: entry[:2])
    return [card for *_, card in ranked[:limit]]


def _score(card: ModelInfo, query: str, words: list[str]) -> float:
    ids = [name.lower() for name in (card.model_id, *card.aliases)]
    fields = (
        (8.0, " ".join(ids)),
        (5.0, card.name),
        (4.0, f"{card.provider} {card.origin.creator or ''}"),
        (3.0, " ".join((card.type.value, *card.recommended, card.specs.architecture or ""))),
        (1.0, card.description),
        (1.0, f"{card.licence.id or ''} {card.origin.base or ''}"),
    )
    prepared = [(weight, _WORD.findall(text.lower())) for weight, text in fields]
    score = 0.0
    for word in words:
        best = max((weight * _match(word, known) for weight, known in prepared), default=0.0)
        if best == 0:
            return 0.0  # every word must be somewhere
        score += best
    if query in ids:
        score += 100
    elif any(name.rpartition("/")[2] == query for name in ids):
        score += 50
    if card.status.value != "current":
        score *= 0.8
    # Of two that match alike, the one with less else in its name was meant.
    return score + 1 / (1 + len(_WORD.findall(ids[0])))


def _match(word: str, known: list[str]) -> float:
    """1 for the word, 0.6 for its beginning, 0 for none."""
    if word in known:
        return 1.0
    if len(word) > 1 and word.isalpha() and any(one.startswith(word) for one in known):
        return 0.6
    return 0.0


def to_dict(card: ModelInfo) -> dict[str, Any]:
    """A card as plain values, with what is worked out of it: `free`, `local`, the size class."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(card))
    size = card.specs.size_class
    found["specs"]["size_class"] = size.value if size else None
    found["licence"]["open_source"] = card.licence.open_source
    return {**found, "free": card.free, "local": card.local}


def export_to_dict(catalog: Mapping[str, ModelInfo] | None = None) -> dict[str, dict[str, Any]]:
    """Every card as plain values, by its id: what `models_registry.json` holds."""
    cards = builtin() if catalog is None else catalog
    return {model_id: to_dict(card) for model_id, card in cards.items()}
