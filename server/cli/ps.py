"""`roundhouse ps`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from server.cli.options import admin_options, json_option

if TYPE_CHECKING:
    from server.cli.client import Client

_HEAD: Final = (
    "ENGINE",
    "STATE",
    "DEVICE",
    "MEMORY",
    "IN FLIGHT",
    "WAITING",
    "IDLE",
    "ORIGIN",
    "MODELS",
    "NOTE",
)
#: With --verbose, before the note.
_MORE: Final = ("SINCE", "PID", "RESTARTS")
#: What a narrow terminal has no room for, the first first.
_SPARE: Final = ("ORIGIN", "IDLE", "WAITING", "MODELS", "DEVICE", "IN FLIGHT", "MEMORY")
_EVERY: Final = 1.0


@click.command(
    epilog="""\b
Examples:
  roundhouse ps
  roundhouse ps -v               with process ids, restarts, and the log of what has failed
  roundhouse ps --watch          until Ctrl-C
  roundhouse ps --json | jq '.[] | select(.state != "ready") | .name'

\b
MEMORY is what is used of what is set aside; IDLE how long nobody has asked, of the time after which
it is unloaded; ORIGIN says who wants the engine: the config, or a `roundhouse load`. A narrow
terminal shows fewer columns, a pipe all."""
)
@click.option("-v", "--verbose", is_flag=True, help="More columns, and failed engines' last lines.")
@click.option("-w", "--watch", is_flag=True, help="Show it anew every second.")
@admin_options
@json_option
def ps(
    admin_url: str | None, admin_key: str | None, as_json: bool, verbose: bool, watch: bool
) -> None:
    """Show the engines of a running server: state, memory, requests, where they are from."""
    from server.cli import client
    from server.cli.client import printable
    from server.cli.show import show

    if watch and as_json:
        raise click.UsageError("--watch is for the eyes; for a program there is GET /events.")
    if watch and not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal.")
    with client.admin(admin_url, admin_key) as server:
        if watch:
            _watch(server, verbose)
            return
        found, left_out = listed_by(server)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    show(
        _head(verbose),
        [row(engine, verbose) for engine in found],
        empty="The server has no engines. `roundhouse load MODEL` adds one.",
        spare=_spare(verbose),
        sentences="NOTE",
    )
    if verbose:
        for engine in found:
            _lines_of(engine)
    names = {str(engine.get("name")).lower() for engine in found}
    for name in left_out:
        _left_out(printable(name), overruled=name.lower() in names, verbose=verbose)


class Listed(NamedTuple):
    """`left_out`: the names of those that were added, and are not in force."""

    engines: list[dict[str, Any]]
    left_out: list[str]


def listed_by(server: Client) -> Listed:
    """Raises ClientError, also when it is not the admin API that answers."""
    from server.cli import client

    answer = server.get("/engines")
    found = answer.get("engines") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise client.ClientError(
            f"What answers at {server.url} is not the admin API. It has a listener of its own: "
            "server.admin in the config, http://127.0.0.1:8001 by default."
        )
    return Listed(found, [str(name) for name in answer.get("left_out") or ()])


def _watch(server: Client, verbose: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from server.cli.client import printable
    from server.cli.show import drawn

    console = Console()
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows = [row(engine, verbose) for engine in listed_by(server).engines]
            clean = [[printable(cell).replace("\n", " ") for cell in one] for one in rows]
            spare = _spare(verbose)
            live.update(
                drawn(console, _head(verbose), clean, spare=spare, sentences="NOTE"), refresh=True
            )
            time.sleep(_EVERY)


def _head(verbose: bool) -> Sequence[str]:
    return (*_HEAD[:-1], *_MORE, _HEAD[-1]) if verbose else _HEAD


def _spare(verbose: bool) -> Sequence[str]:
    return (*_MORE, *_SPARE) if verbose else _SPARE


def row(engine: dict[str, Any], verbose: bool = False) -> tuple[str, ...]:
    """One engine of the admin API, as cells."""
    more = (
        ago(engine.get("since_s")),
        str(engine.get("pid") or "-"),
        str(engine.get("restarts", 0)),
    )
    return (
        str(engine.get("name", "")),
        str(engine.get("state", "")),
        ",".join(map(str, engine.get("devices") or ())) or "-",
        memory(engine.get("memory") or {}),
        str(engine.get("in_flight", 0)),
        str(engine.get("waiting", 0)),
        idle(engine),
        str(engine.get("origin") or "-"),
        ", ".join(map(str, engine.get("models") or ())) or "-",
        *(more if verbose else ()),
        note(engine),
    )


def memory(told: dict[str, Any]) -> str:
    """`7.9 of 9.5 GiB`, `- of 9.5 GiB`, `7.9 GiB`"""
    from server.engines.store.words import size_of

    used, planned = told.get("used"), told.get("planned")
    if not planned:
        return size_of(used) if used else "-"
    if used is None:
        return f"- of {size_of(planned)}"
    mine, whole = size_of(used), size_of(planned)
    return f"{mine.removesuffix(whole[-4:])} of {whole}"


def idle(engine: dict[str, Any]) -> str:
    """`2m of 15m`, `2m`, `pinned`"""
    if engine.get("pinned"):
        return "pinned"
    limit = engine.get("idle_limit_s")
    if (seconds := engine.get("idle_s")) is None:
        return "-" if limit is None else f"- of {ago(limit)}"
    return ago(seconds) if limit is None else f"{ago(seconds)} of {ago(limit)}"


def note(engine: dict[str, Any]) -> str:
    """What goes wrong, else what it does."""
    if engine.get("error"):
        return error_of(engine)
    state, text = engine.get("state"), str(engine.get("stage") or "")
    if text == state:  # the last word of a start
        text = ""
    if (eta := engine.get("eta_s")) and state != "ready":
        text = f"{text}, about {eta:.0f} s".removeprefix(", ")
    instances = engine.get("instances") or ()
    ready = [one for one in instances if _well(one)]
    if len(instances) > 1 and len(ready) < len(instances):
        text = f"{text}; {len(ready)} of {len(instances)} replicas ready".removeprefix("; ")
    ill = [one for one in engine.get("replicas") or () if one.get("error")]
    if ill:
        text = f"{text}; {ill[0].get('address')}: {ill[0]['error']}"
    return text


def error_of(engine: dict[str, Any]) -> str:
    """What is wrong with it, without its name, which stands beside it."""
    text = str(engine.get("error") or "")
    return text.removeprefix(f"Engine '{engine.get('name')}': ")


def _well(instance: Any) -> bool:
    return isinstance(instance, dict) and instance.get("state") == "ready"


def _lines_of(engine: dict[str, Any]) -> None:
    """The last lines of the log of one that has failed."""
    from server.cli.client import printable

    if lines := engine.get("log") or ():
        click.echo(f"\n{engine.get('name')}, the last lines of its log:")
        for line in lines:
            click.echo(f"  | {printable(str(line))}")


def _left_out(name: str, *, overruled: bool, verbose: bool) -> None:
    """What a `load` has added and the server does not serve."""
    if not overruled:
        text = f"{name} was loaded once and is left out; the server's log says why."
    elif verbose:
        text = f"What was loaded as {name} is left out: the config has an engine of this name, too."
    else:
        return
    click.echo(f"{text} `roundhouse unload {name}` forgets it.", err=True)


def ago(seconds: float | None) -> str:
    """`42s`, `7m`, `3h`, `2d`"""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"
