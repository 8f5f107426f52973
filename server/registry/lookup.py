"""Looking models up, in the catalog that Roundhouse comes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.registry.cards import ModelInfo, ModelType
from server.registry.catalog import builtin
from server.registry.searching import search


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
    """All cards of a type, in any case. Raises ValueError for a type that is none."""
    try:
        wanted = ModelType(type.strip().lower())
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
    description; so does what follows each other, and a whole name however it is written. A word
    may stand for a task (`cheap`, `rag`). Numbers must be met whole: `7b` finds no `70b`. Raises
    ValueError for a `limit` below 0."""
    return search(builtin(), query, limit)


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
