"""`roundhouse models show`: everything that is known of a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import click

from server.cli.client import printable
from server.cli.models.shelf import Shelf, footnote, overlay_options, shelf
from server.cli.options import Name, json_option
from server.registry.cards import ModelInfo, Source, Status
from server.registry.catalog import UnknownModel
from server.registry.overlay import Difference

#: Heading → facts, in the order of reading. A group's name stands for all that it has.
_SECTIONS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "Model",
        ("provider", "origin", "type", "access_method", "aliases", "recommended", "limitations"),
    ),
    ("Status", ("status", "retires", "replaced_by")),
    ("Specs", ("specs",)),
    ("Abilities", ("abilities",)),
    ("Cost, US dollars per million tokens", ("cost",)),
    ("Licence", ("licence",)),
    (
        "Use",
        ("api_endpoint", "default_temperature", "default_max_tokens", "default_parameters"),
    ),
    ("Links", ("links",)),
)
_LABELS: Final = {
    "api_endpoint.url": "asked at",
    "api_endpoint.header": "key",
    "licence.id": "licence",
    "licence.open_source": "open source",
    "retires": "ends",
    "specs.size_class": "size",
    "cost.other": "other prices",
    "abilities.json_schema": "JSON schema",
}
#: Not in what a person reads: it says nothing, or something else says it.
_HIDDEN: Final = frozenset({"api_endpoint.method", "api_endpoint.auth_required"})


@click.command(
    epilog="""\b
Examples:
  roundhouse models show gpt-4o-mini
  roundhouse models show qwen3-8b --sources     with where each fact was read, and when
  roundhouse models show gpt-4o-mini --json

A model is named by its id, an alias, PROVIDER/ID, or the last part of its id."""
)
@click.argument("model", type=Name())
@click.option("--sources", is_flag=True, help="Say where every fact was read, and when.")
@overlay_options
@json_option
def show(model: str, sources: bool, overlay: bool, config: str | None, as_json: bool) -> None:
    """Show all that is known of a model."""
    known = shelf(overlay, config)
    try:
        card = known.catalog.info(model)
    except UnknownModel as error:
        raise click.ClickException(
            f"{error} `roundhouse models search WORD…` finds models by words."
        ) from None
    different = [one for one in known.differences if one.model_id == card.model_id]
    if as_json:
        click.echo(json.dumps(as_dict(known, card, different), indent=2, ensure_ascii=False))
        return
    overlaid = known.overlaid(card)
    for line in page(known, card, different, sources):
        click.echo(printable(line).replace("\n", " "))
    footnote(bool(overlaid))


def as_dict(known: Shelf, card: ModelInfo, different: Iterable[Difference]) -> dict[str, Any]:
    """The card as in the export, and what the overlay did to it."""
    import msgspec

    from server.registry.export import document

    overlaid = {card.model_id: known.overlaid(card)}
    found: dict[str, Any] = document({card.model_id: card}, overlaid)["models"][card.model_id]
    if differences := [msgspec.to_builtins(one) for one in different]:
        found["differences"] = differences
    return found


def page(
    known: Shelf, card: ModelInfo, different: Iterable[Difference], with_sources: bool
) -> Iterator[str]:
    """The lines that a person reads."""
    overlaid = known.overlaid(card)
    sources: dict[Source, int] = {}
    facts = _facts(card)

    def line(label: str, path: str, text: str) -> str:
        if path in overlaid:
            text += " *"
        if with_sources and (found := card.source(path)):
            numbers = (sources.setdefault(source, len(sources) + 1) for source in found)
            text += f"  [{', '.join(map(str, numbers))}]"
        if path == "retires" and card.status is Status.RETIRED:
            label = "ended"
        return f"  {label:<19} {text}"

    yield card.model_id if card.name == card.model_id else f"{card.model_id}: {card.name}"
    yield card.description
    if ending := _ending(known, card):
        yield ending
    for heading, groups in _SECTIONS:
        rows = [
            (path, value)
            for path, value in facts.items()
            if path.partition(".")[0] in groups and path not in _HIDDEN
        ]
        if rows:
            rows.sort(key=lambda row: groups.index(row[0].partition(".")[0]))
            yield ""
            yield heading
            yield from (line(_label(path), path, text_of(value)) for path, value in rows)
    if card.exceptions:
        yield ""
        yield "Not known"
        yield from (f"  {_label(path):<19} {why}" for path, why in card.exceptions.items())
    yield from _different(different)
    if with_sources:
        yield ""
        yield "Sources"
        for source, number in sources.items():
            yield f"  [{number}] {source.title}, {source.url}, read {source.date}"


def _ending(known: Shelf, card: ModelInfo) -> str | None:
    after = known.catalog.successor(card)
    advised = after.model_id if after is not None else card.replaced_by
    instead = f" Its provider advises {advised} instead." if advised else ""
    if card.status is Status.RETIRED:
        return f"Retired{f' since {card.retires}' if card.retires else ''}.{instead}"
    if card.status is Status.DEPRECATED:
        when = f": it ends on {card.retires}" if card.retires else ""
        return f"Deprecated{when}.{instead}"
    return None


def _different(different: Iterable[Difference]) -> Iterator[str]:
    told = list(different)
    if not told:
        return
    yield ""
    yield "The provider's own list says something else"
    for one in told:
        where = f" ({one.source.url}, {one.source.date})" if one.source else ""
        state = "accepted, so the list's counts" if one.accepted else "the checked one counts"
        checked, listed = text_of(one.checked), text_of(one.listed)
        yield f"  {_label(one.fact):<19} checked: {checked}; listed: {listed}; {state}{where}"


def _facts(card: ModelInfo) -> dict[str, Any]:
    """What is known, by path, with what follows from it."""
    from server.registry.lookup import to_dict

    found: dict[str, Any] = {}
    for name, value in to_dict(card).items():
        if isinstance(value, Mapping) and name != "default_parameters":
            found |= {f"{name}.{part}": inner for part, inner in value.items()}
        else:
            found[name] = value
    return {path: value for path, value in found.items() if value not in (None, [], (), {})}


def _label(path: str) -> str:
    return _LABELS.get(path) or path.rpartition(".")[2].replace("_", " ")


def text_of(value: Any) -> str:
    """A fact for people: `yes`, `128,000`, `text, image`."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.6g}"
        case Mapping():
            return ", ".join(f"{key} {text_of(inner)}" for key, inner in value.items())
        case list() | tuple():
            return ", ".join(map(text_of, value))
    return str(value)
