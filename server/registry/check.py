"""What is asked of every card, and the schema of a file of cards.

python -m server.registry.check                   the catalog that Roundhouse comes with
python -m server.registry.check FILE…             these files
python -m server.registry.check --schema FILE     write the JSON schema of a file of cards
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec

from server.registry.cards import (
    CHATTING,
    AccessMethod,
    LicenceKind,
    ModelInfo,
    ModelType,
    Source,
    Status,
)
from server.registry.catalog import DATA, CardError, Catalog, read
from server.registry.tasks import TASKS

#: Types that read text in tokens, so that a window is to be known.
_WINDOWED: Final = frozenset(ModelType) - {ModelType.VISION, ModelType.AUDIO, ModelType.IMAGE}
#: Abilities to be known of what chats.
_ABILITIES: Final = ("streaming", "tools", "json_schema", "vision", "audio", "reasoning")
#: No facts, or facts about facts.
_NOT_FACTS: Final = frozenset(
    {"model_id", "name", "provider", "description", "sources", "exceptions", "aliases"}
)
_MODALITIES: Final = frozenset(
    {"text", "image", "audio", "video", "file", "vector", "score", "label"}
)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH: Final = re.compile(r"\d{4}(-\d{2}){0,2}")


def problems(card: ModelInfo, catalog: Catalog, today: date | None = None) -> Iterator[str]:
    """What is wrong with a card, one sentence each."""
    facts = dict(_facts(card))
    for fact in facts:
        if not card.source(fact):
            yield f"{fact} has no source"
    for source in dict.fromkeys(source for found in card.sources.values() for source in found):
        yield from _about(source, today or date.today())  # noqa: DTZ011 - a day on a calendar
    for fact in _needed(card):
        if fact not in facts and not _excepted(card, fact):
            yield f"{fact} is not known, and `exceptions` does not say why"
    for fact, reason in card.exceptions.items():
        if fact in facts:
            yield f"`exceptions` names {fact}, which is known"
        if len(reason) < 10:
            yield f"`exceptions` gives no reason for {fact}"
    yield from _shape(card)
    if card.replaced_by is not None and catalog.find(card.replaced_by) is None:
        yield f"it is replaced by {card.replaced_by!r}, which has no card"
    for name in (card.model_id, *card.aliases):
        other = catalog.find(name)
        if other is not None and other.model_id != card.model_id:
            yield f"the name {name!r} is {other.model_id}'s, too"


def _needed(card: ModelInfo) -> Iterator[str]:
    yield from ("licence.id", "licence.kind", "licence.commercial_use", "origin.creator")
    if card.status is Status.RETIRED:
        yield "replaced_by"
    if card.type in _WINDOWED:
        yield "specs.context_window"
    yield from ("specs.input_modalities", "specs.output_modalities")
    if card.type in CHATTING:
        yield from (f"abilities.{ability}" for ability in _ABILITIES)
    if card.local:
        yield from ("specs.parameters", "links.model_card")
    if card.access_method is not AccessMethod.LOCAL:
        yield "api_endpoint.url"
    if card.access_method is AccessMethod.API and card.status is not Status.RETIRED:
        if card.cost.other is None:
            yield "cost.input"
        if card.cost.other is None and card.type in CHATTING | {ModelType.COMPLETION}:
            yield "cost.output"


def _excepted(card: ModelInfo, fact: str) -> bool:
    while fact and fact not in card.exceptions:
        fact = fact.rpartition(".")[0]
    return fact in card.exceptions


def _facts(card: ModelInfo) -> Iterator[tuple[str, Any]]:
    """Everything that is known, by its path."""
    for name, value in msgspec.to_builtins(card).items():
        if name in _NOT_FACTS:
            continue
        if isinstance(value, dict) and name != "default_parameters":
            for below, inner in value.items():
                if inner is not None:
                    yield f"{name}.{below}", inner
        elif value not in (None, [], (), {}):
            yield name, value


def _about(source: Source, today: date) -> Iterator[str]:
    if not source.url.startswith("https://"):
        yield f"the source {source.title!r} has no https address"
    if not source.title.strip():
        yield f"the source {source.url!r} has no title"
    if not _DAY.fullmatch(source.date):
        yield f"the source {source.title!r} has no day, but {source.date!r}"
    elif date.fromisoformat(source.date) > today:
        yield f"the source {source.title!r} is from the future"


def _shape(card: ModelInfo) -> Iterator[str]:
    yield from _numbers(card)
    yield from _words(card)
    if card.status is Status.CURRENT and card.retires is not None:
        yield "it has an end (`retires`), so it is deprecated or retired"
    if card.local and card.licence.kind is LicenceKind.PROPRIETARY:
        yield "what is proprietary has no weights to run: access_method must be api"


def _numbers(card: ModelInfo) -> Iterator[str]:
    specs, cost = card.specs, card.cost
    for name in ("parameters", "active_parameters", "context_window", "max_output", "dimensions"):
        value = getattr(specs, name)
        if value is not None and value <= 0:
            yield f"specs.{name} must be more than 0"
    if specs.active_parameters and specs.active_parameters > (specs.parameters or 0):
        yield "specs.active_parameters is more than specs.parameters"
    prices = (cost.input, cost.cached_input, cost.cache_write, cost.output)
    if any(price is not None and price < 0 for price in (*prices, *(cost.other or {}).values())):
        yield "a price is below 0"
    if specs.knowledge_date is not None and not _MONTH.fullmatch(specs.knowledge_date):
        yield f"specs.knowledge_date is no date: {specs.knowledge_date!r}"
    if card.retires is not None and not _DAY.fullmatch(card.retires):
        yield f"retires is no day: {card.retires!r}"


def _words(card: ModelInfo) -> Iterator[str]:
    specs = card.specs
    for modality in (*(specs.input_modalities or ()), *(specs.output_modalities or ())):
        if modality not in _MODALITIES:
            yield f"{modality!r} is no modality: {', '.join(sorted(_MODALITIES))}"
    if card.origin.training not in (None, "pre-trained", "fine-tuned"):
        yield "origin.training must be pre-trained or fine-tuned"
    for task in card.recommended:
        if task not in TASKS:
            yield f"{task!r} is no task: {', '.join(TASKS)}"
    for link in (card.links.documentation, card.links.model_card, card.licence.link):
        if link is not None and not link.startswith("https://"):
            yield f"{link!r} is no https address"
    if not card.description.strip().endswith("."):
        yield "the description must be a sentence or two"


def schema() -> dict[str, Any]:
    """The JSON schema of a file of cards, for editors."""
    (found,), parts = msgspec.json.schema_components([ModelInfo], ref_template="#/$defs/{name}")
    source = parts["Source"]
    for part in parts.values():
        if part.get("type") == "object":
            part["additionalProperties"] = False
            part.pop("required", None)
    source["required"] = ["title", "url", "date"]
    model = parts["ModelInfo"]
    name = {"type": "string", "description": "A key of the file's `sources`."}
    model["properties"]["sources"] = {
        "type": "object",
        "description": 'Sources by the path of the fact, or group of facts; "" is the rest.',
        "additionalProperties": {"anyOf": [name, {"type": "array", "items": name}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cards of one provider, see docs/registry.md",
        "type": "object",
        "additionalProperties": False,
        "required": ["provider", "sources", "models"],
        "properties": {
            "$schema": {"type": "string"},
            "provider": {"type": "string"},
            "sources": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Source"}},
            "defaults": {**found, "description": "What the cards below share."},
            "models": {
                "type": "array",
                "items": {**found, "required": ["model_id"]},
            },
        },
        "$defs": parts,
    }


def report(paths: Iterable[Path]) -> list[str]:
    """Every problem of these files, with the file and the model in front."""
    found: list[tuple[Path, ModelInfo]] = []
    wrong: list[str] = []
    for path in paths:
        try:
            found += [(path, card) for card in read(path)]
        except CardError as error:
            wrong.append(str(error))
    ids = [card.model_id for _, card in found]
    wrong += [
        f"{name}: has {ids.count(name)} cards" for name in sorted({*ids}) if ids.count(name) > 1
    ]
    catalog = Catalog(card for _, card in found)
    for path, card in found:
        wrong += [f"{path.name}: {card.model_id}: {what}" for what in problems(card, catalog)]
    return wrong


def main(argv: list[str] | None = None) -> int:
    """The exit status: 1 when a card is not as it must be."""
    parser = argparse.ArgumentParser(
        prog="python -m server.registry.check", description="Check files of cards."
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--schema", type=Path, help="write the JSON schema to this file")
    given = parser.parse_args(argv)
    if given.schema is not None:
        given.schema.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
        return 0
    files = given.files or sorted(DATA.glob("*.json"))
    wrong = report(files)
    for line in wrong:
        print(line)  # noqa: T201 - a command
    cards = sum(len(read(path)) for path in files) if not wrong else 0
    print(f"{len(wrong)} problems" if wrong else f"{cards} cards in {len(files)} files: good")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
