"""The catalog as the commands see it: what Roundhouse comes with, under the overlays of HOME."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
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


def home(config: str | None = None) -> Path:
    """The server's home, as this config or the one here says. Raises ConfigError for `config`;
    one that is only found and has faults does not count."""
    if config is None and (named := os.environ.get("ROUNDHOUSE_HOME")):
        return Path(named).expanduser()
    from server.cli.models.configured import read_config
    from server.config.load import load_quickstart
    from server.errors import StartError

    try:
        found, _ = read_config(config)
        return (found or load_quickstart()).home
    except (StartError, OSError):
        if config is not None:
            raise
        click.echo(
            "The config here has faults, so overlays are read from the default home. "
            "`roundhouse check` shows them.",
            err=True,
        )
        return Path("~/.roundhouse").expanduser()


def shelf(overlay: bool = True, config: str | None = None) -> Shelf:
    """What the commands look into. A broken overlay is left out, and that is told."""
    checked = builtin()
    if not overlay:
        return Shelf(checked, checked)
    stack = stacked(checked, home(config) / FOLDER)
    for path, error in stack.broken:
        sentence = (
            f"The overlay {path} is left out: {error}. "
            f"`roundhouse models sync {path.stem}` writes it anew."
        )
        click.echo(printable(sentence), err=True)
    return Shelf(checked, stack.catalog, stack.differences)


def overlay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Whether and where from overlays are read."""
    command = click.option(
        "--config", metavar="FILE", help="The config whose home has the overlay of `models sync`."
    )(command)
    return click.option(
        "--overlay/--no-overlay",
        default=True,
        help="With what `models sync` has brought (the default), or without.",
    )(command)


def footnote(marked: bool) -> None:
    """Says what `*` means, beside the output."""
    if marked:
        click.echo("* from the overlay of `roundhouse models sync`", err=True)
