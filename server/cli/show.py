"""Tables: drawn for a terminal, plain columns for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from server.cli.client import printable
from server.cli.greeting import table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: What a column of sentences needs at least; the rest of them goes on in the next line.
_SENTENCE: Final = 24


def show(
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    empty: str,
    spare: Sequence[str] = (),
    sentences: str | None = None,
) -> None:
    """Print a table, or the sentence `empty`. On a terminal that is too narrow for all columns,
    those of `spare` are left out, the first first, and the column `sentences` is folded."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in body]
    if not cells:
        click.echo(empty)
    elif sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(drawn(console, head, cells, spare=spare, sentences=sentences))
    else:
        for line in table(head, cells):
            click.echo(line.removeprefix("  "))


def drawn(
    console: Console,
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    spare: Sequence[str] = (),
    sentences: str | None = None,
) -> Table:
    """As `show` prints it on this terminal."""
    shown, left = list(range(len(head))), [head.index(title) for title in spare]
    while left and _width(head, body, shown, sentences) > console.width:
        shown.remove(left.pop(0))
    return _drawn(head, body, shown, sentences)


def _width(
    head: Sequence[str], body: Sequence[Sequence[str]], shown: Sequence[int], sentences: str | None
) -> int:
    from rich.cells import cell_len

    widths = [max(cell_len(row[at]) for row in (head, *body)) for at in shown]
    if sentences is not None:
        at = shown.index(head.index(sentences))
        widths[at] = min(widths[at], _SENTENCE)
    return sum(widths) + 3 * (len(shown) - 1)


def _drawn(
    head: Sequence[str], body: Sequence[Sequence[str]], shown: Sequence[int], sentences: str | None
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at in shown:
        whole = sentences is not None and head[at] != sentences
        made.add_column(head[at], no_wrap=whole, overflow="ellipsis" if whole else "fold")
    for row in body:
        made.add_row(*(Text(row[at], style=_STYLES.get(row[at], "")) for at in shown))
    return made


_STYLES: Final = {
    "ready": "green",
    "failed": "red",
    "starting": "yellow",
    "loading": "yellow",
    "waiting": "yellow",
    "backoff": "yellow",
}
