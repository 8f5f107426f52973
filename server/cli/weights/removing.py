"""`roundhouse rm`: free the disk of a model that nobody serves."""

from __future__ import annotations

import json

import click

from server.cli.options import json_option
from server.cli.weights.common import here, place_options, size_of, told


@click.command(
    epilog="""\b
Examples:
  roundhouse rm Qwen/Qwen3-0.6B
  roundhouse rm Qwen/Qwen3-0.6B --revision v1.0     that one only; shared files stay
  roundhouse rm Qwen/Qwen3-0.6B --dry-run           what would be freed

Of a registered folder only the record is removed; its files are yours."""
)
@click.argument("model")
@click.option("--revision", metavar="NAME", help="Only this branch, tag or commit.")
@click.option("--force", is_flag=True, help="Even if an engine of the config uses it.")
@click.option("--dry-run", is_flag=True, help="Remove nothing.")
@place_options
@json_option
def rm(
    model: str,
    revision: str | None,
    force: bool,
    dry_run: bool,
    store: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Remove a model from this disk."""
    from server.engines.store import holdings
    from server.engines.store.errors import StoreError
    from server.engines.store.places import store_folder

    found, where = here(config, strict=not force), store_folder(store)
    with told(where):
        chosen = holdings.named(model, revision, holdings.holdings(where, found.home))
    users = sorted({user for one in chosen for user in found.users(one)})
    if users and not force:
        raise StoreError(
            f"{chosen[0].name} is the weights of the engine {', '.join(users)} in the config. "
            "Take it out of there first, or remove it all the same with --force.",
            reason="used",
        )
    with told(where):
        done = holdings.remove(chosen, where, found.home, dry_run=dry_run)
    if as_json:
        facts = {"name": done.name, "commits": done.commits, "freed": done.freed}
        click.echo(json.dumps({**facts, "folder": done.folder, "removed": not dry_run}, indent=2))
    elif done.folder:
        verb = "would be" if dry_run else "is"
        click.echo(f"{done.name} {verb} registered no more. Its files stay.")
    else:
        verb = "Would remove" if dry_run else "Removed"
        click.echo(f"{verb} {done.name}: {size_of(done.freed)} freed.")
