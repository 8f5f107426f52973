"""`roundhouse models` without a subcommand: the models of a running server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from server.config.resolve import ResolvedModel


def show_running(base_url: str | None, api_key: str | None, as_json: bool) -> None:
    """List the models of a running server that the key may use; without one, those of the config
    here. Raises ClientError."""
    from server.cli import client
    from server.cli.show import show

    try:
        with client.public(base_url, api_key) as server:
            answer = server.get("/v1/models")
    except client.NotRunning as error:
        found = client.here().models if base_url is None else None
        if found is None:
            raise
        click.echo(f"{error} The config here has:", err=True)
        _from_config(found, as_json)
        return
    data = answer.get("data") if isinstance(answer, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    body = [(str(entry.get("id", "")), str(entry.get("owned_by", ""))) for entry in entries]
    show(("MODEL", "OWNED BY"), body, empty="The server has no model that this key may use.")


def _from_config(found: dict[str, ResolvedModel], as_json: bool) -> None:
    from server.cli.greeting import rows
    from server.cli.show import show

    body = rows((), found)
    if as_json:
        click.echo(
            json.dumps([{"id": name, "state": "not running"} for name, *_ in body], indent=2)
        )
        return
    listed = [(name, by, "not running") for name, by, _ in body]
    show(("MODEL", "SERVED BY", "STATE"), listed, empty="The config has no models.")
