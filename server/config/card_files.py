"""Files of cards that a config names, over the catalog that Roundhouse comes with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from server.config import yamltext
from server.errors import ConfigError
from server.registry.cards import ModelInfo
from server.registry.catalog import CardError, Catalog, parse


def overlay(below: Catalog, files: Iterable[tuple[Path, bytes]]) -> Catalog:
    """`below` with the cards of these files over it: a card replaces the one of its id, and its
    names come first. Raises ConfigError that names the file and the fact."""
    found: dict[str, ModelInfo] = {}
    for file, data in files:
        found |= {card.model_id: card for card in _cards(file, data)}
    if not found:
        return below
    rest = (card for card in below.values() if card.model_id not in found)
    return Catalog([*found.values(), *rest])


def _cards(file: Path, data: bytes) -> list[ModelInfo]:
    try:
        return parse(_tree(file, data), file.name)
    except CardError as error:
        text = str(error).removeprefix(f"{file.name}: ").rstrip(".")
        raise ConfigError(
            f"{text}.", file=str(file), hint="docs/registry.md has the form of a file of cards."
        ) from None


def _tree(file: Path, data: bytes) -> Any:
    if file.suffix != ".json":
        return yamltext.parse(data, str(file))[0]
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise ConfigError(f"This is not JSON: {error}.", file=str(file), line=line) from None
