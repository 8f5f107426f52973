"""`roundhouse rm`: free the disk of a model that nobody serves."""

from __future__ import annotations

import json
from typing import Any

import click

from server.cli.options import Name, json_option
from server.cli.weights.common import Where, told, where_options
from server.engines.store.words import size_of


@click.command(
    epilog="""\b
Examples:
  roundhouse rm Qwen/Qwen3-0.6B
  roundhouse rm Qwen/Qwen3-0.6B --revision v1.0     that one only; shared files stay
  roundhouse rm Qwen/Qwen3-0.6B --dry-run           what would be freed

What an engine of the config uses is not removed, nor what an engine of a running server uses. By
force it is, unless that engine runs. Of a registered folder only the record is removed; its files
are yours."""
)
@click.argument("model", type=Name())
@click.option("--revision", metavar="NAME", help="Only this branch, tag or commit.")
@click.option("--force", is_flag=True, help="Even if an engine uses it that does not run now.")
@click.option("--dry-run", is_flag=True, help="Remove nothing.")
@where_options
@json_option
def rm(
    model: str,
    revision: str | None,
    force: bool,
    dry_run: bool,
    where: Where,
    as_json: bool,
) -> None:
    """Remove a model from this disk."""
    from server.cli.weights.remote import allowed, removed
    from server.engines.store import holdings
    from server.engines.store.errors import StoreError

    admin_url, admin_key = where.admin_url, where.admin_key
    if where.on_server:
        where.only_there()
        done = removed(model, revision, admin_url, admin_key, force=force, dry_run=dry_run)
        return _tell({**done, "folder": False}, as_json)
    found = where.here(strict=not force)
    store = found.store(where.store)
    with told(store):
        chosen = found.named(model, revision, store)
    users = sorted({user for one in chosen for user in found.users(one)})
    if users and not force:
        raise StoreError(
            f"{chosen[0].name} is the weights of the engine {', '.join(users)} in the config. "
            "Take it out of there first, or remove it all the same with --force.",
            reason="used",
        )
    if not any(one.record and one.record.path for one in chosen):
        allowed(chosen[0].name, revision, store, admin_url, admin_key, force=force)
    with told(store):
        freed = holdings.remove(chosen, store, found.home, dry_run=dry_run)
    facts = {"name": freed.name, "commits": freed.commits, "freed": freed.freed}
    _tell({**facts, "folder": freed.folder, "removed": not dry_run}, as_json)


def _tell(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(done, indent=2))
    elif done["folder"]:
        verb = "is" if done["removed"] else "would be"
        click.echo(f"{done['name']} {verb} registered no more. Its files stay.")
    else:
        verb = "Removed" if done["removed"] else "Would remove"
        click.echo(f"{verb} {done['name']}: {size_of(done['freed'])} freed.")
