"""`roundhouse ps`."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from server.cli.options import admin_options, json_option

_HEAD: Final = (
    "ENGINE",
    "STATE",
    "SINCE",
    "PID",
    "IN FLIGHT",
    "WAITING",
    "RESTARTS",
    "MODELS",
    "NOTE",
)


@click.command(
    epilog="""\b
Examples:
  roundhouse ps
  roundhouse ps --json | jq '.[].state'"""
)
@admin_options
@json_option
def ps(admin_url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Show the engines of a running server."""
    from server.cli import client
    from server.cli.show import show

    with client.admin(admin_url, admin_key) as server:
        answer = server.get("/engines")
    found = answer.get("engines") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise client.ClientError(
            f"What answers at {server.url} is not the admin API. It has a listener of its own: "
            "server.admin in the config, http://127.0.0.1:8001 by default."
        )
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    show(_HEAD, [row(engine) for engine in found], empty="The server has no engines.")


def row(engine: dict[str, Any]) -> tuple[str, ...]:
    """One engine of the admin API, as cells."""
    note = engine.get("error") or engine.get("stage") or ""
    if (eta := engine.get("eta_s")) is not None and not engine.get("error"):
        note = f"{note}, about {eta:.0f} s".removeprefix(", ")
    ill = [one for one in engine.get("replicas") or () if one.get("error")]
    if ill and not engine.get("error"):
        note = f"{note}; {ill[0].get('address')}: {ill[0]['error']}"
    return (
        str(engine.get("name", "")),
        str(engine.get("state", "")),
        ago(engine.get("since_s")),
        str(engine.get("pid") or "-"),
        str(engine.get("in_flight", 0)),
        str(engine.get("waiting", 0)),
        str(engine.get("restarts", 0)),
        ", ".join(map(str, engine.get("models") or ())) or "-",
        str(note),
    )


def ago(seconds: float | None) -> str:
    """`42s`, `7m`, `3h`, `2d`"""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"
