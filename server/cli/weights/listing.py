"""`roundhouse ls` and `du`: what is on this disk, and what it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from server.cli.options import json_option
from server.cli.weights.common import as_dict, here, place_options, since, size_of, told


@click.command(
    epilog="""\b
Examples:
  roundhouse ls
  roundhouse ls --json | jq '.[] | select(.used_by == []) | .name'

\b
States: verified (pulled or registered by Roundhouse), cached (somebody else's download),
partial (a pull that did not end), damaged, gone (a folder that was there)."""
)
@place_options
@json_option
def ls(store: str | None, config: str | None, as_json: bool) -> None:
    """List the models on this disk: pulled ones, others of the hub's cache, registered folders."""
    from server.cli.show import show
    from server.engines.store.holdings import holdings
    from server.engines.store.places import store_folder

    found = here(config)
    where = store_folder(store)
    with told(where):
        rows = [(one, found.users(one)) for one in holdings(where, found.home)]
    if as_json:
        click.echo(json.dumps([as_dict(one, users) for one, users in rows], indent=2))
        return
    show(
        ("MODEL", "COMMIT", "SIZE", "STATE", "SINCE", "USED BY"),
        [
            (
                one.name,
                one.commit[:12] or "-",
                size_of(one.size),
                one.state,
                since(one.when),
                ", ".join(users) or "-",
            )
            for one, users in rows
        ],
        empty=f"There are no models in {where}. `roundhouse pull MODEL` brings one.",
    )


@click.command(
    epilog="""\b
Example:
  roundhouse du"""
)
@place_options
@json_option
def du(store: str | None, config: str | None, as_json: bool) -> None:
    """Show what the models take on the disk, the largest first, and what is free."""
    from server.cli.show import show
    from server.engines.store.holdings import usage
    from server.engines.store.places import store_folder

    where = store_folder(store)
    with told(where):
        rows = usage(where)
        free = shutil.disk_usage(_there(where)).free
    total = sum(one.size for one in rows)
    if as_json:
        models = [{"name": one.name, "size": one.size, "partial": one.partial} for one in rows]
        found = {"store": str(where), "models": models, "size": total, "free": free}
        click.echo(json.dumps(found, indent=2))
        return
    show(
        ("MODEL", "SIZE", "OF IT PARTIAL"),
        [
            (one.name, size_of(one.size), size_of(one.partial) if one.partial else "-")
            for one in rows
        ],
        empty="No models are here.",
    )
    click.echo(f"{size_of(total)} in {where}, {size_of(free)} free")


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())
