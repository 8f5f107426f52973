"""`roundhouse show`: all that is known of a model on a disk."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import click

from server.cli.client import printable
from server.cli.options import Name, json_option
from server.cli.weights.common import Here, Where, since, told, where_options
from server.engines.store.words import size_of

if TYPE_CHECKING:
    from server.engines.store.holdings import Holding


@click.command(
    epilog="""\b
Examples:
  roundhouse show Qwen/Qwen3-0.6B
  roundhouse show Qwen/Qwen3-0.6B --verify     read every file and hold it against the record

What the registry knows of a model, prices and abilities, is at `roundhouse models show`."""
)
@click.argument("model", type=Name())
@click.option("--revision", metavar="NAME", help="Only this branch, tag or commit.")
@click.option("--verify", is_flag=True, help="Read every file, and fail if one has changed.")
@where_options
@json_option
def show(
    model: str,
    revision: str | None,
    verify: bool,
    where: Where,
    as_json: bool,
) -> None:
    """Show a model on this disk: its commits and files, since when and by whom, who uses it."""
    if where.on_server:
        from server.cli.weights.remote import shown

        where.only_there(verify=verify)
        rows = shown(model, revision, where.admin_url, where.admin_key)
    else:
        rows = _here(model, revision, verify, where.store, where.here())
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for number, one in enumerate(rows):
            if number:
                click.echo()
            _tell(one)
    if bad := [path for one in rows for path in one.get("changed", ())]:
        raise click.ClickException(
            f"{len(bad)} files of {model} are not what they were ({bad[0]}). "
            f"`roundhouse rm {model}` and `roundhouse pull {model}` bring it anew."
        )


def _here(
    model: str, revision: str | None, verify: bool, store: str | None, found: Here
) -> list[dict[str, Any]]:
    import msgspec

    from server.engines.store import holdings

    where = found.store(store)
    with told(where):
        chosen = found.named(model, revision, where)
    rows = []
    for one in chosen:
        facts = holdings.facts_of(one, found.users(one))
        facts["record"] = msgspec.to_builtins(one.record) if one.record else None
        if verify and one.state != "partial":
            facts["changed"] = _verified(one)
        rows.append(facts)
    return rows


def _verified(one: Holding) -> list[str]:
    from server.cli.weights.meter import Meter
    from server.engines.store import holdings
    from server.engines.store.progress import Progress

    progress = Progress()
    with Meter(one.name, progress) as meter:
        return holdings.verify(one, progress=progress, stop=threading.Event(), tick=meter.tick)


def _tell(one: dict[str, Any]) -> None:
    record = one["record"]
    when = one["when"] or ""
    facts = [
        ("state", one["state"]),
        ("commit", one["commit"] or ""),
        ("revisions", ", ".join(one["refs"])),
        ("path", one["path"] or ""),
        ("size", size_of(one["size"])),
        ("since", f"{when} ({since(when)})" if when else ""),
        ("used by", ", ".join(one["used_by"])),
    ]
    if record is not None:
        facts += [
            ("asked by", record["asked_by"]),
            ("hub", record.get("endpoint", "")),
            ("licence", record.get("licence") or "the card names none"),
        ]
    click.echo(printable(str(one["name"])))
    for name, value in facts:
        if value:
            click.echo(printable(f"  {name:<10}{value}"))
    if record is not None:
        click.echo("  files")
        for file in record["files"]:
            note = "  changed" if file["path"] in one.get("changed", ()) else ""
            click.echo(printable(f"    {size_of(file['size']):>10}  {file['path']}{note}"))
