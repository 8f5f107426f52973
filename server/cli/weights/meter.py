"""How a pull is shown: a bar on a terminal, a line now and then elsewhere, or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from server.cli.client import printable
from server.engines.store.words import pace_of, size_of

if TYPE_CHECKING:
    from server.engines.store.progress import Look


class Watched(Protocol):
    """A progress, ours or a server's."""

    def look(self) -> Look: ...

    def said(self) -> list[str]: ...


#: Seconds between two lines of a pull that nobody watches.
EVERY: Final = 5.0


class Meter:
    """Shows a progress each time `tick` is called. On stderr; JSON lines go to stdout."""

    def __init__(
        self,
        name: str,
        progress: Watched,
        *,
        as_json: bool = False,
        before: str = "reading",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._progress, self._json, self._clock = name, progress, as_json, clock
        self._next, self._every = clock(), 1.0 if as_json else EVERY
        self._before = before
        self._done = 0
        self._said: set[str] = set()
        self._bar: Any = None
        self._task: Any = None
        self._width = 0

    def __enter__(self) -> Meter:
        if not self._json and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()
        self._notes()

    def tick(self) -> None:
        self._notes()
        if self._bar is not None:
            self._draw()
        elif self._clock() >= self._next:
            look = self._progress.look()
            if look.size:
                self._next = self._clock() + self._every
                self._line(look)

    def event(self, kind: str, **facts: Any) -> None:
        """A JSON line, where those are wanted."""
        if self._json:
            click.echo(json.dumps({"event": kind, **facts}, ensure_ascii=False))

    def _notes(self) -> None:
        for line in self._progress.said():
            # While it waits it says so again and again, and figures that stand still say less.
            if (done := self._progress.look().done) == self._done:
                self._next = self._clock() + self._every
            self._done = done
            if line in self._said:
                continue
            self._said.add(line)
            if self._json:
                self.event("note", message=line)
            elif self._bar is not None:
                from rich.text import Text

                self._bar.console.print(Text(printable(line)))
            else:
                click.echo(printable(line), err=True)

    def _line(self, look: Look) -> None:
        if self._json:
            self.event(
                "progress",
                files=look.files,
                files_done=look.files_done,
                size=look.size,
                done=look.done,
                rate=None if look.rate is None else round(look.rate),
                seconds_left=None if look.left is None else round(look.left),
            )
        else:
            click.echo(f"{self._name}: {text_of(look)}", err=True)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        console = Console(stderr=True)
        # A line of its own: beside a long name 80 columns have no room for the time left.
        console.print(Text(printable(self._name)))
        text = TextColumn("{task.fields[told]}", markup=False)
        self._width = 24 if console.width >= 100 else 10 if console.width >= 60 else 0
        self._bar = Progress(
            *([BarColumn(bar_width=self._width), text] if self._width else [text]),
            console=console,
            refresh_per_second=5,
        )
        self._task = self._bar.add_task("", total=None, told=self._before)
        self._bar.start()

    def _draw(self) -> None:
        look = self._progress.look()
        if look.size:
            room = self._bar.console.width - (self._width + 1 if self._width else 0)
            told = text_of(look, room)
            self._bar.update(self._task, total=look.size, completed=look.done, told=told)


def text_of(look: Look, room: int | None = None) -> str:
    """`34 %, 1.2 GiB of 3.4 GiB, 2 of 4 files, 80 MiB/s, 27 s left`; where so many columns have no
    room for it, what is left out first is what one can do without."""
    share = f"{100 * look.done // look.size if look.size else 100} %"
    sizes = f"{size_of(look.done)} of {size_of(look.size)}"
    files = f"{look.files_done} of {look.files} files"
    pace = pace_of(look)
    fewer = (
        [share, sizes, files, *pace],
        [share, sizes, *pace],
        [share, *pace],
        [share, *pace[1:]],
        [share],
    )
    texts = [", ".join(parts) for parts in fewer]
    return next((text for text in texts if room is None or len(text) <= room), texts[-1])
