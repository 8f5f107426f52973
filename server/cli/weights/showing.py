"""`roundhouse show`: all that is known of a model on this disk."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import click

from server.cli.client import printable
from server.cli.options import json_option
from server.cli.weights.common import Here, as_dict, here, place_options, since, size_of, told

if TYPE_CHECKING:
    from server.engines.store.holdings import Holding


@click.command(
    epilog="""\b
Examples:
  roundhouse show Qwen/Qwen3-0.6B
  roundhouse show Qwen/Qwen3-0.6B --verify     read every file and hold it against the record

What the registry knows of a model, prices and abilities, is at `roundhouse models show`."""
)
@click.argument("model")
@click.option("--revision", metavar="NAME", help="Only this branch, tag or commit.")
@click.option("--verify", is_flag=True, help="Read every file, and fail if one has changed.")
@place_options
@json_option
def show(
    model: str,
    revision: str | None,
    verify: bool,
    store: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Show a model on this disk: its commits and files, since when and by whom, who uses it."""
    from server.cli.weights.meter import Meter
    from server.engines.store import holdings
    from server.engines.store.places import store_folder
    from server.engines.store.progress import Progress

    found, where = here(config), store_folder(store)
    with told(where):
        chosen = holdings.named(model, revision, holdings.holdings(where, found.home))
    wrong: dict[str, list[str]] = {}
    if verify:
        for one in chosen:
            if one.state == "partial":
                continue
            progress = Progress()
            with Meter(one.name, progress) as meter:
                wrong[one.commit] = holdings.verify(
                    one, progress=progress, stop=threading.Event(), tick=meter.tick
                )
    if as_json:
        click.echo(json.dumps([_full(one, found, wrong) for one in chosen], indent=2))
    else:
        for number, one in enumerate(chosen):
            if number:
                click.echo()
            _tell(one, found, wrong)
    if bad := [path for paths in wrong.values() for path in paths]:
        raise click.ClickException(
            f"{len(bad)} files of {model} are not what they were ({bad[0]}). "
            f"`roundhouse rm {model}` and `roundhouse pull {model}` bring it anew."
        )


def _full(one: Holding, found: Here, wrong: dict[str, list[str]]) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = as_dict(one, found.users(one))
    shown["record"] = msgspec.to_builtins(one.record) if one.record else None
    if one.commit in wrong:
        shown["changed"] = wrong[one.commit]
    return shown


def _tell(one: Holding, found: Here, wrong: dict[str, list[str]]) -> None:
    record = one.record
    facts = [
        ("state", one.state),
        ("commit", one.commit),
        ("revisions", ", ".join(one.refs)),
        ("path", str(one.path or "")),
        ("size", size_of(one.size)),
        ("since", f"{one.when} ({since(one.when)})" if one.when else ""),
        ("used by", ", ".join(found.users(one))),
    ]
    if record is not None:
        facts += [
            ("asked by", record.asked_by),
            ("hub", record.endpoint),
            ("licence", record.licence or "the card names none"),
        ]
    click.echo(one.name)
    for name, value in facts:
        if value:
            click.echo(printable(f"  {name:<10}{value}"))
    if record is not None:
        click.echo("  files")
        for file in record.files:
            note = "  changed" if file.path in wrong.get(one.commit, ()) else ""
            click.echo(printable(f"    {size_of(file.size):>10}  {file.path}{note}"))
