"""The catalog as one text: JSON (`models_registry.json`), YAML, or tables for people.

The same catalog gives the same text: there is no time stamp in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from server.registry.cards import ModelInfo
from server.registry.lookup import export_to_dict

#: Of the form below; goes up when a member changes its meaning or goes away.
SCHEMA: Final = 1


def document(
    cards: Mapping[str, ModelInfo], overlaid: Mapping[str, frozenset[str]] | None = None
) -> dict[str, Any]:
    """`{"schema": 1, "models": {id: card}}`. `overlaid`: facts that an overlay brought, by id; a
    card that has some names them under `overlay`."""
    models = export_to_dict(cards)
    for model_id, facts in (overlaid or {}).items():
        if facts and model_id in models:
            models[model_id]["overlay"] = sorted(facts)
    return {"schema": SCHEMA, "models": models}


def to_json(
    cards: Mapping[str, ModelInfo], overlaid: Mapping[str, frozenset[str]] | None = None
) -> str:
    return json.dumps(document(cards, overlaid), indent=2, ensure_ascii=False) + "\n"


def to_yaml(
    cards: Mapping[str, ModelInfo], overlaid: Mapping[str, frozenset[str]] | None = None
) -> str:
    """Needs PyYAML, which the server has."""
    import yaml

    # Through JSON, so that a tuple is a list and no two places share an anchor.
    plain = json.loads(to_json(cards, overlaid))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text


def to_markdown(
    cards: Mapping[str, ModelInfo], overlaid: Mapping[str, frozenset[str]] | None = None
) -> str:
    """A table for each provider. Prices are US dollars per million tokens; `*` marks what an
    overlay brought."""
    by_provider: dict[str, list[ModelInfo]] = {}
    for card in cards.values():
        by_provider.setdefault(card.provider, []).append(card)
    lines = ["# Models", "", f"{len(cards)} models. Prices: US dollars per million tokens.", ""]
    for provider in sorted(by_provider):
        lines += [f"## {provider}", "", _line(HEAD), _line(("---",) * len(HEAD))]
        for card in by_provider[provider]:
            marked = (overlaid or {}).get(card.model_id, frozenset())
            lines.append(_line(cells(card, marked)))
        lines.append("")
    return "\n".join(lines)


FORMATS: Final[dict[str, Callable[..., str]]] = {
    "json": to_json,
    "yaml": to_yaml,
    "md": to_markdown,
}

# --- one line for a card ----------------------------------------------------------------------

HEAD: Final = ("MODEL", "PROVIDER", "TYPE", "CONTEXT", "$IN", "$OUT", "LICENCE", "STATUS")


def cells(card: ModelInfo, overlaid: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """A card as a row under `HEAD`. `-` is unknown; `*` marks a fact that an overlay brought,
    after the id where the whole card is its."""
    whole = "type" in overlaid and "status" in overlaid

    def mark(text: str, *facts: str) -> str:
        return f"{text}*" if not whole and overlaid.intersection(facts) else text

    licence = card.licence.id or (card.licence.kind.value if card.licence.kind else "-")
    return (
        f"{card.model_id}*" if whole else card.model_id,
        card.provider,
        mark(card.type.value, "type"),
        mark(tokens(card.specs.context_window), "specs.context_window"),
        mark(dollars(card.cost.input), "cost.input"),
        mark(dollars(card.cost.output), "cost.output"),
        mark(licence, "licence.id", "licence.kind"),
        mark(card.status.value, "status"),
    )


def tokens(count: int | None) -> str:
    """`8k`, `128k`, `1.05M`; `-` for unknown."""
    if count is None:
        return "-"
    if count >= 1_000_000:
        return f"{count / 1e6:.3g}M"
    return f"{count / 1e3:.0f}k" if count >= 1000 else str(count)


def dollars(price: float | None) -> str:
    """`0.15`, `10`; `-` for unknown."""
    return "-" if price is None else f"{price:.4g}" if price < 1000 else f"{price:.0f}"


def _line(row: tuple[str, ...]) -> str:
    """Of a provider's own table, which need not name the provider."""
    shown = [
        "".join(sign for sign in cell if sign.isprintable()).replace("|", "\\|")
        for cell, title in zip(row, HEAD, strict=True)
        if title != "PROVIDER"
    ]
    return f"| {' | '.join(shown)} |"
