"""`roundhouse unload`, `stop`, `default` and `reload`: calls of the admin API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from server.cli.client import segment
from server.cli.options import Name, admin_options, all_options, json_option

if TYPE_CHECKING:
    from server.cli.client import Client

_UNLOAD: Final = (
    click.argument("engine", required=False, type=Name()),
    click.option("--all", "every", is_flag=True, help="Every engine of the server."),
    click.option("--keep", is_flag=True, help="Do not forget what `roundhouse load` has added."),
    admin_options,
    json_option,
)


@click.command(
    epilog="""\b
Examples:
  roundhouse unload qwen
  roundhouse unload Qwen/Qwen3-8B        by its model or its weights
  roundhouse unload --all

\b
An engine of the config stays stopped until `roundhouse load`, or until the server's next start. One
that `roundhouse load` added is forgotten with its models; --keep leaves it for the next `load`."""
)
@all_options(_UNLOAD)
def unload(**given: Any) -> None:
    """Drain and stop an engine: open requests finish first."""
    _unload(**given)


@click.command(
    epilog="""\b
Example:
  roundhouse stop qwen        the same as `roundhouse unload qwen`"""
)
@all_options(_UNLOAD)
def stop(**given: Any) -> None:
    """Drain and stop an engine; another name for `unload`."""
    _unload(**given)


def _unload(
    engine: str | None,
    every: bool,
    keep: bool,
    admin_url: str | None,
    admin_key: str | None,
    as_json: bool,
) -> None:
    from server.cli import client
    from server.cli.ps import listed_by

    if every is (engine is not None):
        raise click.UsageError("Name one engine, or say --all.")
    with client.admin(admin_url, admin_key) as server:
        listed = listed_by(server)
        if engine is not None:
            found = [_named(server, engine, listed.left_out)]
        else:
            ours = [one for one in listed.engines if "replicas" not in one]
            forget = not keep
            found = [o for o in ours if o.get("state") != "stopped" or (forget and _added(o))]
        answers = [_one(server, told, keep, as_json, listed.left_out) for told in found]
    if as_json:
        click.echo(json.dumps(answers if every else answers[0], indent=2))
    elif not answers:
        click.echo("Nothing is loaded.")


def _named(server: Client, name: str, left_out: Sequence[str]) -> dict[str, Any]:
    """The engine that the server has under this name; one that is only kept is as good."""
    from server.cli.client import Refused

    try:
        return _dict(server, server.get(_path(name)))
    except Refused as error:
        if error.status != 404 or not _is_of(left_out, name):
            raise
    return {"name": name}


def _one(
    server: Client, told: dict[str, Any], keep: bool, quiet: bool, left_out: Sequence[str]
) -> dict[str, Any]:
    """Unload it, forget it if it was added, and say which. What was added under the name of one of
    the config is forgotten with it."""
    name, forget = str(told.get("name")), not keep and (_added(told) or "origin" not in told)
    path = _path(name)
    try:
        # It takes as long as the open requests do, up to the engine's stop_timeout.
        asked = (
            server.delete(path, patient=True)
            if forget
            else server.post(f"{path}/unload", patient=True)
        )
    except KeyboardInterrupt:
        click.echo(f"Stopped waiting. {name} goes on stopping.", err=True)
        raise
    answer = _dict(server, asked)
    if not quiet:
        click.echo(_said(name, answer, told, forgotten=forget))
    if not (forget or keep) and _is_of(left_out, name):
        server.delete(path)
        if not quiet:
            click.echo(f"What was loaded as {name}, and left out, is forgotten.")
    return answer


def _path(name: str) -> str:
    return f"/engines/{segment(name)}"


def _is_of(names: Sequence[str], name: str) -> bool:
    return name.lower() in (one.lower() for one in names)


def _said(name: str, answer: dict[str, Any], told: dict[str, Any], *, forgotten: bool) -> str:
    if "origin" not in told:
        return f"{name} is forgotten: it was kept, and left out."
    if not forgotten:
        kept = " It is kept for the next `roundhouse load`." if _added(told) else ""
        return f"{name} is {answer.get('state', 'unknown')}.{kept}"
    models = ", ".join(map(str, answer.get("models") or ()))
    text = f"{name} is stopped and forgotten" + (
        f", and with it the model {models}." if models else "."
    )
    return text + (" There is no default model any more." if answer.get("default_cleared") else "")


def _added(told: dict[str, Any]) -> bool:
    return told.get("origin") == "loaded"


def _dict(server: Client, answer: Any) -> dict[str, Any]:
    from server.cli.client import ClientError

    if not isinstance(answer, dict):
        raise ClientError(f"What answers at {server.url} is not the admin API.")
    return answer


@click.command(
    epilog="""\b
Examples:
  roundhouse default                 which one it is
  roundhouse default Qwen/Qwen3-8B
  roundhouse default --clear"""
)
@click.argument("model", required=False, type=Name())
@click.option("--clear", is_flag=True, help="Have none: then every request names its model.")
@admin_options
@json_option
def default(
    model: str | None, clear: bool, admin_url: str | None, admin_key: str | None, as_json: bool
) -> None:
    """Show or set the model of requests that name none. It is kept for the server's next start."""
    from server.cli import client

    if clear and model is not None:
        raise click.UsageError("Name a model, or say --clear; not both.")
    with client.admin(admin_url, admin_key) as server:
        if clear:
            asked = server.delete("/default")
        elif model is not None:
            asked = server.put("/default", json.dumps({"model": model}).encode())
        else:
            asked = server.get("/default")
        answer = _dict(server, asked)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    name, origin = answer.get("model"), answer.get("origin")
    if name is None:
        click.echo("There is no default model: every request names its own.")
    else:
        text = f"{name} ({'in the config' if origin == 'config' else 'set at run time'})"
        click.echo(text + (". What was set at run time is forgotten." if clear else ""))


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
        click.echo("Nothing has changed since the server read it last, which it does by itself.")
    else:
        click.echo(f"Reloaded. Changed: {', '.join(answer.get('changed') or ['nothing'])}.")
    for warning in answer.get("warnings") or ():
        click.echo(f"Note: {warning}", err=True)
