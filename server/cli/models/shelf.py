"""The catalog as the commands see it, and as the server does: what Roundhouse comes with, under the
overlays of HOME, under the cards of the config."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from server.cli.client import printable
from server.registry.cards import ModelInfo
from server.registry.catalog import Catalog, builtin
from server.registry.overlay import FOLDER, Difference, filled, stacked


@dataclass(frozen=True, slots=True)
class Shelf:
    """`builtin`: without overlays; `catalog`: with them; `differences`: what they contradict."""

    builtin: Catalog
    catalog: Catalog
    differences: list[Difference] = field(default_factory=list)

    def overlaid(self, card: ModelInfo) -> frozenset[str]:
        """The facts of a card that an overlay brought."""
        before = self.builtin.get(card.model_id)
        return frozenset() if before is card else filled(before, card)

    def all_overlaid(self, cards: Iterable[ModelInfo]) -> dict[str, frozenset[str]]:
        """By id, for the cards that have some."""
        return {card.model_id: found for card in cards if (found := self.overlaid(card))}


@dataclass(frozen=True, slots=True)
class Own:
    """What the config here, or the one named, brings: the server's home, and its files of cards."""

    home: Path
    cards: Sequence[tuple[Path, bytes]] = ()


def own(config: str | None = None) -> Own:
    """Raises ConfigError for `config`; one that is only found and has faults does not count."""
    from server.cli.models.configured import read_config
    from server.config.load import load_quickstart
    from server.errors import StartError

    try:
        found, _ = read_config(config)
        if found is None:
            return Own(load_quickstart().home)
        files = [found.folder / Path(name).expanduser() for name in found.config.cards]
        return Own(found.home, [(file, file.read_bytes()) for file in files])
    except (StartError, OSError):
        if config is not None:
            raise
        named = os.environ.get("ROUNDHOUSE_HOME")
        where = f"from {named}" if named else "from the default home"
        click.echo(
            f"The config here has faults, so overlays are read {where}, and its cards are not. "
            "`roundhouse check` shows them.",
            err=True,
        )
        return Own(Path(named or "~/.roundhouse").expanduser())


def shelf(overlay: bool = True, config: str | None = None) -> Shelf:
    """What the commands look into. A broken overlay is left out, and that is told."""
    checked = builtin()
    if not overlay:
        return Shelf(checked, checked)
    from server.config.card_files import overlay as laid_over

    mine = own(config)
    stack = stacked(checked, mine.home / FOLDER)
    for sentence in stack.left_out:
        click.echo(printable(sentence), err=True)
    below, catalog = (laid_over(one, mine.cards) for one in (checked, stack.catalog))
    return Shelf(below, catalog, stack.differences)


def overlay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Whether and where from overlays are read."""
    command = click.option(
        "--config", metavar="FILE", help="The config whose cards and whose home's overlay are read."
    )(command)
    return click.option(
        "--overlay/--no-overlay",
        default=True,
        help="With what `models sync` and the config's `cards` bring (the default), or without.",
    )(command)


def footnote(marked: bool) -> None:
    """Says what `*` means, beside the output."""
    if marked:
        click.echo("* from the overlay of `roundhouse models sync`", err=True)
