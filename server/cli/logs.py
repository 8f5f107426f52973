"""`roundhouse logs`: what an engine has said."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from server.cli.options import Name, admin_options

#: Seconds between two looks at a file.
_LOOK: Final = 0.25
_COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@click.command(
    epilog="""\b
Examples:
  roundhouse logs qwen
  roundhouse logs qwen -n 1000 | grep -i error
  roundhouse logs qwen -f            and what comes, until Ctrl-C

\b
When no server answers, or its admin API is off, the files under its home are read. A terminal gets
no control characters, a pipe gets the log as it is."""
)
@click.argument("engine", type=Name())
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, help="Last lines [100].")
@admin_options
def logs(
    engine: str, follow: bool, lines: int, admin_url: str | None, admin_key: str | None
) -> None:
    """Show the last lines of an engine's log."""
    from server.cli import client

    path = f"/engines/{client.segment(engine)}/logs?lines={lines}&follow={str(follow).lower()}"
    why = "The config here switches the admin API off."
    if follow:
        _end_with_the_reader()
    try:
        with client.admin(admin_url, admin_key) as server:
            why = f"No server answers at {server.url}."
            with server.lines(path) as chunks:
                shown = _show(chunks)
    except (client.NotRunning, client.AdminOff) as error:
        home = client.here().home
        if admin_url is not None or home is None:
            raise
        file = _file(home / "logs", engine, error)
        click.echo(f"{why} This is from {file}:", err=True)
        shown = _show(_of_file(file, lines, follow))
    if not shown and lines:
        click.echo(f"The log of {engine} is empty: it has not been started yet.", err=True)


def _end_with_the_reader() -> None:
    """`logs -f | grep -m1 ready` ends when grep does, and not with the next line, which may never
    come."""
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):  # nothing that somebody else could close
        return
    gone = select.poll()
    gone.register(fd, 0)

    def wait() -> None:
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in gone.poll()):
            os._exit(0)  # whatever the other thread waits for

    threading.Thread(target=wait, name="reader", daemon=True).start()


def _file(folder: Path, engine: str, error: Exception) -> Path:
    """Only of what is there: a name is no path. Raises ClientError."""
    from server.api.unknown import near_matches
    from server.cli import client

    known = {file.name.removesuffix(".log"): file for file in sorted(folder.glob("*.log"))}
    if engine in known:
        return known[engine]
    if near := near_matches(engine, known):
        hint = " Did you mean " + " or ".join(f"`{one}`" for one in near) + "?"
    else:
        hint = f" There are: {', '.join(known)}." if known else " There are none."
    raise client.ClientError(f"{error} Nor is there a log of `{engine}` in {folder}.{hint}")


def _of_file(file: Path, lines: int, follow: bool) -> Iterator[bytes]:
    from server.engines.logtail import LogTail

    with LogTail(file, lines) as tail:
        while (data := tail.read()) or follow:
            if data:
                yield data
            else:
                time.sleep(_LOOK)


def _show(chunks: Iterable[bytes]) -> bool:
    """As they come; whether anything came."""
    shown, clean = False, Clean() if sys.stdout.isatty() else None
    for chunk in chunks:
        shown = shown or bool(chunk)
        if clean is None:
            sys.stdout.buffer.write(chunk)
        else:
            sys.stdout.write(clean.text(chunk))
        sys.stdout.flush()
    return shown


class Clean:
    """Bytes in pieces → text that cannot draw on a terminal. What a progress bar writes over itself
    becomes lines."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cut = ""

    def text(self, chunk: bytes) -> str:
        from server.cli.client import printable

        text = self._cut + self._decoder.decode(chunk)
        # A colour, or the end of a line, may be cut in two.
        at = max(text.rfind("\x1b"), len(text) - 1 if text.endswith("\r") else -1)
        self._cut = ""
        if at >= 0 and len(text) - at < 16 and not _COLOURS.match(text, at):
            text, self._cut = text[:at], text[at:]
        text = _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return printable(text)
