"""`roundhouse load`, `unload` and `reload`: thin calls of the admin API."""

from __future__ import annotations

from urllib.parse import quote

import click

from server.cli.options import admin_options


@click.command(
    epilog="""\b
Example:
  roundhouse load qwen"""
)
@click.argument("engine")
@admin_options
def load(engine: str, admin_url: str | None, admin_key: str | None) -> None:
    """Load an engine now: one that is stopped, has failed, or waits for its first request.

    Returns at once; `roundhouse ps` shows how far it is.
    """
    _engine(engine, "load", admin_url, admin_key)


@click.command(
    epilog="""\b
Example:
  roundhouse unload qwen"""
)
@click.argument("engine")
@admin_options
def unload(engine: str, admin_url: str | None, admin_key: str | None) -> None:
    """Drain and stop an engine. It stays stopped until `load`."""
    _engine(engine, "unload", admin_url, admin_key)


def _engine(name: str, action: str, admin_url: str | None, admin_key: str | None) -> None:
    from server.cli import client

    with client.admin(admin_url, admin_key) as server:
        answer = server.post(f"/engines/{quote(name, safe='')}/{action}")
    state = answer.get("state", "unknown") if isinstance(answer, dict) else "unknown"
    if action == "load" and state in ("stopped", "failed"):  # it has not begun yet
        click.echo(f"{name} is about to load. `roundhouse ps` shows how far it is.")
    else:
        click.echo(f"{name} is {state}.")


@click.command(
    name="reload",
    epilog="""\b
Example:
  roundhouse reload        the same as SIGHUP, but with an answer""",
)
@admin_options
def reload_(admin_url: str | None, admin_key: str | None) -> None:
    """Have the server read its config again: whole, or not at all."""
    from server.cli import client

    with client.admin(admin_url, admin_key) as server:
        answer = server.post("/reload")
    if not isinstance(answer, dict) or answer.get("result") not in ("ok", "unchanged"):
        raise client.ClientError(f"What answers at {server.url} is not the admin API.")
    if answer["result"] == "unchanged":
        click.echo("Nothing has changed.")
    else:
        click.echo(f"Reloaded. Changed: {', '.join(answer.get('changed') or ['nothing'])}.")
    for warning in answer.get("warnings") or ():
        click.echo(f"Note: {warning}", err=True)
