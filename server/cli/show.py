"""Tables: drawn for a terminal, plain columns for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from server.cli.client import printable
from server.cli.greeting import table


def show(head: Sequence[str], body: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a table, or the sentence `empty`."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in body]
    if not cells:
        click.echo(empty)
    elif sys.stdout.isatty():
        _drawn(head, cells)
    else:
        for line in table(head, cells):
            click.echo(line.removeprefix("  "))


def _drawn(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in head:
        drawn.add_column(title)
    for row in body:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(drawn)


_STYLES = {"ready": "green", "failed": "red", "starting": "yellow", "loading": "yellow"}
