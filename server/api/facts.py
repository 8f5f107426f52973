"""What /v1/models says of a model beyond OpenAI's four fields, under one key."""

from __future__ import annotations

from typing import Any

from server.config.cards import Prices
from server.config.resolve import ResolvedModel, ResolvedTarget
from server.registry.cards import ModelInfo, Status


def facts(model: ResolvedModel) -> dict[str, Any]:
    """Of a model as it is served here. What nobody knows is left out; nothing is null."""
    about, card = model.about, model.about.card
    found = {
        "card": card.model_id if card else None,
        "provider": card.provider if card else model.targets[0].provider,
        "type": about.type.value if about.type else None,
        "context_window": about.context_window,
        "max_output": about.max_output,
        "abilities": dict(about.abilities),
        "prices": _prices(model.targets[0].prices),
        **(_of_card(card) if card else {}),
        "alias_of": model.alias_of,
        "targets": [label(target) for target in model.targets],
    }
    return _known(found)


def label(target: ResolvedTarget) -> str:
    """As in the header `x-roundhouse-target`."""
    if target.engine is not None:
        return f"engine/{target.engine}"
    return f"{target.provider}/{target.model}"


def _of_card(card: ModelInfo) -> dict[str, Any]:
    licence, specs = card.licence, card.specs
    return {
        "licence": {
            "id": licence.id,
            "name": licence.name,
            "kind": licence.kind.value if licence.kind else None,
            "commercial_use": licence.commercial_use,
            "link": licence.link,
        },
        "status": card.status.value,
        "replaced_by": card.replaced_by,
        "retires": card.retires if card.status is not Status.CURRENT else None,
        "modalities": {
            "input": list(specs.input_modalities or ()),
            "output": list(specs.output_modalities or ()),
        },
        "size_class": specs.size_class.value if specs.size_class else None,
    }


def _prices(prices: Prices | None) -> dict[str, float | None]:
    if prices is None:
        return {}
    return {
        "input": prices.input,
        "cached_input": prices.cached_input,
        "output": prices.output,
    }


def _known(value: dict[str, Any]) -> dict[str, Any]:
    """Without what is unknown or empty, at any depth."""
    found = {n: _known(inner) if isinstance(inner, dict) else inner for n, inner in value.items()}
    return {name: inner for name, inner in found.items() if inner not in (None, {}, [])}
