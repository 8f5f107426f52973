"""`roundhouse models list` and `search`: one line for each card."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Final

import click

from server.cli.models.shelf import Shelf, footnote, overlay_options, shelf
from server.cli.options import json_option
from server.cli.show import show
from server.registry.cards import ModelInfo, ModelType, Status
from server.registry.export import HEAD, cells, document

#: Columns that go first where a terminal is narrow, and those whose figures stand to the right.
_DISPENSABLE: Final = ("LICENCE", "STATUS", "PROVIDER", "TYPE")
_FIGURES: Final = frozenset({"CONTEXT", "$IN", "$OUT"})
#: A name is not cut below this while there are columns to drop.
_NAME: Final = 28
#: What rich draws between two columns, and at both edges together.
_BETWEEN, _EDGES = 3, 2


@click.command(
    "list",
    epilog="""\b
Examples:
  roundhouse models list
  roundhouse models list --provider openai --type embedding
  roundhouse models list --local --json | jq -r '.[].model_id'

CONTEXT is tokens, $IN and $OUT are US dollars per million tokens; - is unknown.""",
)
@click.option("--provider", metavar="NAME", help="Of this provider alone.")
@click.option(
    "--type",
    "kind",
    type=click.Choice([t.value for t in ModelType], case_sensitive=False),
    help="Of this type.",
)
@click.option("--local", is_flag=True, help="Whose weights can be run here.")
@click.option("--free", is_flag=True, help="Open weights, or a provider's free tier.")
@click.option(
    "--status",
    type=click.Choice([*(s.value for s in Status), "all"], case_sensitive=False),
    help="Default: current and deprecated.",
)
@overlay_options
@json_option
def list_models(
    provider: str | None,
    kind: str | None,
    local: bool,
    free: bool,
    status: str | None,
    overlay: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """List the models that the registry knows."""
    known = shelf(overlay, config)
    cards = list(known.catalog.values())
    if provider is not None:
        cards = of_provider(known, provider)
    found = [
        card
        for card in cards
        if (kind is None or card.type.value == kind)
        and (not local or card.local)
        and (not free or card.free)
        and (status == "all" or _has(card, status))
    ]
    _print(known, found, as_json, "No model of the registry is like that.")


@click.command(
    epilog="""\b
Examples:
  roundhouse models search llama 8b instruct
  roundhouse models search embedding multilingual --limit 5
  roundhouse models search gpt --json

The best come first. Every word must be met; numbers whole, so 7b finds no 70b. A word may
stand for a task: cheap, rag, ocr."""
)
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), default=20, help="At most so many [20].")
@overlay_options
@json_option
def search(
    query: Sequence[str], limit: int, overlay: bool, config: str | None, as_json: bool
) -> None:
    """Search the registry by words: of ids, names, makers, types, tasks and descriptions."""
    from server.registry import searching

    known = shelf(overlay, config)
    words = " ".join(query)
    found = searching.search(known.catalog, words, limit)
    if found:
        _print(known, found, as_json, "")
        return
    if as_json:
        click.echo("[]")
    click.echo(
        f"The registry has nothing for {words!r}. Try fewer words, or `roundhouse models list`.",
        err=True,
    )
    raise click.exceptions.Exit(1)


def of_provider(known: Shelf, provider: str) -> list[ModelInfo]:
    """Its cards. Raises BadParameter, which names the providers there are."""
    wanted = provider.strip().lower()
    found = [card for card in known.catalog.values() if card.provider.lower() == wanted]
    if not found:
        names = sorted({card.provider for card in known.catalog.values()})
        raise click.BadParameter(
            f"the registry has no provider {provider!r}. It has {', '.join(names)}.",
            param_hint="--provider",
        )
    return found


def _has(card: ModelInfo, status: str | None) -> bool:
    return card.status is not Status.RETIRED if status is None else card.status.value == status


def _print(known: Shelf, cards: Sequence[ModelInfo], as_json: bool, empty: str) -> None:
    overlaid = known.all_overlaid(cards)
    if as_json:
        models = document({card.model_id: card for card in cards}, overlaid)["models"]
        click.echo(json.dumps(list(models.values()), indent=2, ensure_ascii=False))
        return
    rows = [cells(card, overlaid.get(card.model_id, frozenset())) for card in cards]
    head: Sequence[str] = HEAD
    if sys.stdout.isatty():
        head, rows = fit(HEAD, rows, shutil.get_terminal_size().columns)
    show(head, rows, empty=empty)
    footnote(any("*" in cell for row in rows for cell in row))


def fit(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[tuple[str, ...]]]:
    """The table, so that a terminal of `width` columns holds it: first the names are cut, then
    columns go, then the names are cut shorter still. Figures stand to the right."""
    columns = {title: [row[at] for row in rows] for at, title in enumerate(head)}
    name, room = head[0], 0
    for title in (*_DISPENSABLE, None):
        others = [max(map(len, (t, *column))) for t, column in columns.items() if t != name]
        room = width - sum(others) - _BETWEEN * len(others) - _EDGES
        longest = max(map(len, (name, *columns[name])))
        if title is None or room >= min(longest, _NAME):
            break
        columns.pop(title, None)
    columns[name] = [cut(cell, max(room, len(name))) for cell in columns[name]]
    shown = {}
    for title, column in columns.items():
        most = max(map(len, (title, *column))) if title in _FIGURES else 0
        shown[title.rjust(most)] = [cell.rjust(most) for cell in column]
    return list(shown), list(zip(*shown.values(), strict=True))


def cut(name: str, room: int) -> str:
    """An id in less room: without its owner first (`…/Qwen3-8B`), then without its middle."""
    if len(name) <= room:
        return name
    short = f"…/{name.rpartition('/')[2]}" if "/" in name else name
    if len(short) <= room:
        return short
    tail = (room - 1) // 3
    return f"{short[: room - 1 - tail]}…{short[len(short) - tail :]}"
