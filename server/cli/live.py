"""One line that changes, on a terminal; elsewhere a line for each new stage. On stderr."""

from __future__ import annotations

import os
import re
import sys
from types import TracebackType
from typing import Final

import click

from server.cli.client import printable

_CLEAR: Final = "\r\x1b[2K"
#: From the first figure on, a text only counts.
_FIGURES: Final = re.compile(r"\W*\d.*", re.DOTALL)


class Line:
    """Use as a context manager. Leaving takes the line off the terminal again."""

    def __init__(self) -> None:
        self._alive = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._last = ""

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._alive:
            self._write(_CLEAR)

    def say(self, name: str, stage: str, more: str = "") -> None:
        """What `name` is doing. `more` moves on by itself, such as a time: it makes no new line,
        and neither do the stage's figures."""
        stage = printable(stage).replace("\n", " ")
        if self._alive:
            self._write(_CLEAR + clipped(f"{name}: {stage}{more}"))
        elif (told := _FIGURES.sub("", stage)) != self._last:
            self._last = told
            click.echo(f"{name}: {stage}", err=True)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def clipped(text: str) -> str:
    """As much as the terminal has room for in one line."""
    from rich.cells import cell_len, set_cell_size

    try:
        room = os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except (OSError, ValueError):
        room = 79
    if room < 1 or cell_len(text) <= room:  # a terminal that does not say has 0 columns
        return text
    return set_cell_size(text, room - 1) + "…"
