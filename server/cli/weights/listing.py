"""`roundhouse ls` and `du`: what is on a disk, and what it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from server.cli.options import json_option
from server.cli.weights.common import Where, since, told, where_options
from server.engines.store.words import size_of


@click.command(
    epilog="""\b
Examples:
  roundhouse ls
  roundhouse ls --on-server
  roundhouse ls --json | jq '.[] | select(.used_by == []) | .name'

\b
States: verified (pulled or registered by Roundhouse), cached (somebody else's download),
partial (a pull that did not end), damaged, gone (a folder that was there)."""
)
@where_options
@json_option
def ls(where: Where, as_json: bool) -> None:
    """List the models on this disk: pulled ones, others of the hub's cache, registered folders."""
    from server.cli.show import show
    from server.engines.store.holdings import facts_of, holdings

    if where.on_server:
        from server.cli.weights.remote import listed

        where.only_there()
        answer = listed(where.admin_url, where.admin_key)
        place, rows = str(answer["store"]), answer["models"]
    else:
        found = where.here()
        folder = found.store(where.store)
        place = str(folder)
        with told(folder):
            rows = [facts_of(one, found.users(one)) for one in holdings(folder, found.home)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    pull = "roundhouse pull MODEL" + (" --on-server" if where.on_server else "")
    show(
        ("MODEL", "COMMIT", "SIZE", "STATE", "SINCE", "USED BY"),
        [
            (
                str(one["name"]),
                (one["commit"] or "-")[:12],
                size_of(one["size"]),
                str(one["state"]),
                since(one["when"] or ""),
                ", ".join(one["used_by"]) or "-",
            )
            for one in rows
        ],
        empty=f"There are no models in {place}. `{pull}` brings one.",
        spare=("SINCE", "COMMIT", "SIZE"),
    )


@click.command(
    epilog="""\b
Examples:
  roundhouse du
  roundhouse du --on-server"""
)
@where_options
@json_option
def du(where: Where, as_json: bool) -> None:
    """Show what the models take on the disk, the largest first, and what is free."""
    from server.cli.show import show

    if where.on_server:
        from server.cli.weights.remote import listed

        where.only_there()
        answer = listed(where.admin_url, where.admin_key)
        facts = {name: answer[name] for name in ("store", "size", "free")}
        facts["models"] = answer["usage"]
    else:
        facts = _usage(where.here().store(where.store))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    show(
        ("MODEL", "SIZE", "OF IT PARTIAL"),
        [
            (
                str(one["name"]),
                size_of(one["size"]),
                size_of(one["partial"]) if one["partial"] else "-",
            )
            for one in facts["models"]
        ],
        empty="No models are here.",
    )
    click.echo(f"{size_of(facts['size'])} in {facts['store']}, {size_of(facts['free'])} free")


def _usage(where: Path) -> dict[str, Any]:
    from server.engines.store.holdings import usage

    with told(where):
        rows = usage(where)
        free = shutil.disk_usage(_there(where)).free
    return {
        "store": str(where),
        "models": [{"name": one.name, "size": one.size, "partial": one.partial} for one in rows],
        "size": sum(one.size for one in rows),
        "free": free,
    }


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())
