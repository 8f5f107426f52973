"""`roundhouse load`: an engine of the server, or weights that it has not been told of yet."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from server.cli.client import ClientError, Refused, printable, segment
from server.cli.options import Name, admin_options, all_options, json_option
from server.cli.ps import error_of

if TYPE_CHECKING:
    from server.cli.client import Client

#: Seconds between two looks.
_LOOK: Final = 0.3
#: How long an engine may look stopped before it has begun.
_BEGIN: Final = 30.0
#: Settings that are the engine's keys under another name, or as they are.
_KEYS: Final = {
    "group": "groups",
    "kv_cache": "kv_cache",
    "context": "context",
    **{
        key: key
        for key in (
            *("revision", "device", "dtype", "quantization", "concurrency"),
            *("idle", "replicas", "memory"),
        )
    },
}


class LoadFailed(ClientError):
    """With the last lines of the engine's log."""

    def __init__(self, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


def _pair(text: str, flag: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name or name.startswith("-"):
        raise click.BadParameter(f"{text!r}: write {flag} NAME=VALUE.", param_hint=flag)
    return name, value if equals else None


def _args(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """`max-num-seqs=8`; a bare name is true."""
    found: dict[str, Any] = {}
    for text in given:
        name, value = _pair(text.removeprefix("--"), "--arg")
        found[name] = True if value is None else _value(value)
    return found


def _settings(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """`max_in_flight=8`"""
    found = {}
    for text in given:
        name, value = _pair(text, "--set")
        if value is None:
            raise click.BadParameter(f"{text!r}: write --set {name}=VALUE.", param_hint="--set")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """A number, true or false where it is one; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _env(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` as it is here."""
    found = {}
    for text in given:
        name, value = _pair(text, "--env")
        if value is None and (value := os.environ.get(name)) is None:
            raise click.BadParameter(f"{name} is not set here.", param_hint="--env")
        found[name] = value
    return found


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from server.config.units import seconds

    try:
        return None if value is None else float(seconds(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_OPTIONS: Final = (
    click.option("--name", metavar="ENGINE", help="The engine's name. Default: from the weights."),
    click.option("--as", "as_", metavar="MODEL", help="What clients call it. Default: its id."),
    click.option("--context", type=click.IntRange(1), help="Longest prompt and answer, in tokens."),
    click.option(
        "--concurrency",
        type=click.IntRange(1),
        help="Requests of that length at one time, which the KV cache is to hold.",
    ),
    click.option("--kv-cache", metavar="SIZE", help="The KV cache's bytes, instead: 8GiB."),
    click.option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:0,1 [auto]."),
    click.option("--dtype", metavar="TYPE", help="auto, bfloat16, float16, float32 [auto]."),
    click.option("--quantization", metavar="METHOD", help="As vLLM names it: fp8."),
    click.option("--revision", metavar="NAME", help="Branch, tag or commit on the hub [main]."),
    click.option("--replicas", type=click.IntRange(1), help="So many of it [1]."),
    click.option(
        "--memory",
        metavar="SIZE",
        help="Bytes that it takes of each device, instead of what is counted.",
    ),
    click.option("--idle", metavar="DURATION", help="Unload it after so long without a request."),
    click.option("--pinned", is_flag=True, help="Never unload it to make room."),
    click.option("--sleep", is_flag=True, help="Make room by moving its weights to host memory."),
    click.option(
        "--group", multiple=True, metavar="NAME", help="One of a group is loaded at a time."
    ),
    click.option(
        "--arg",
        "args",
        multiple=True,
        metavar="FLAG=VALUE",
        callback=_args,
        help="A flag of vLLM's.",
    ),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_env,
        help="A variable for its process.",
    ),
    click.option(
        "--set",
        "others",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_settings,
        help="Any other key of an engine: --set max_in_flight=32.",
    ),
    click.option("--default", is_flag=True, help="Make it the model of requests that name none."),
    click.option("--wait/--no-wait", default=True, help="Wait until it is ready [wait]."),
    click.option(
        "--timeout", metavar="DURATION", callback=_seconds, help="Wait for so long at most."
    ),
    admin_options,
    json_option,
)


@click.command(
    epilog="""\b
Examples:
  roundhouse load qwen                       an engine, or a model, of the server
  roundhouse load Qwen/Qwen3-8B --context 16384 --concurrency 8
  roundhouse load ./my-model --as mine --default
  roundhouse load Qwen/Qwen3-0.6B --pinned --arg max-num-seqs=64 --no-wait

\b
Weights that are not on the server's disk are pulled first. What is added here is kept for the
server's next start, beside its config; `roundhouse unload` forgets it. Ctrl-C ends the waiting, not
the loading."""
)
@click.argument("what", metavar="WHAT", type=Name())
@all_options(_OPTIONS)
def load(
    what: str,
    name: str | None,
    as_: str | None,
    default: bool,
    wait: bool,
    timeout: float | None,
    admin_url: str | None,
    admin_key: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Load WHAT now, and wait until it is ready: an engine or a model of the server, or else the
    weights of a hub id, a folder, or embedded:guide."""
    from server.cli import client

    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for a wait, and --no-wait says that there is none.")
    body: dict[str, Any] = {"model": _what(what)}
    body |= {key: value for key, value in (("name", name), ("as", as_)) if value is not None}
    if settings := _wanted(given):
        body["settings"] = settings
    if default:
        body["default"] = True
    with client.admin(admin_url, admin_key) as server:
        try:
            # A first look at the engines' Python takes its time.
            answer = server.post("/engines", json.dumps(body).encode(), patient=True)
        except client.Refused as error:
            raise _with_hint(error, what) from None
        except KeyboardInterrupt:
            click.echo(
                "Stopped before the server has answered. It may load it all the same: "
                "`roundhouse ps` shows it.",
                err=True,
            )
            raise
        if not isinstance(answer, dict) or "state" not in answer:
            raise client.ClientError(f"What answers at {server.url} is not the admin API.")
        engine = str(answer.get("name"))
        if wait:
            answer = _wait(server, answer, timeout)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif wait:
        models = ", ".join(map(str, answer.get("models") or ())) or "no model"
        click.echo(f"{engine} is ready. It answers for: {models}.")
    else:
        click.echo(f"{engine} is being loaded. `roundhouse ps` shows how far it is.")


def _wanted(given: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, by the config's keys."""
    found = dict(given["others"])
    for flag, key in _KEYS.items():
        if (value := given[flag]) not in (None, ()):
            found[key] = list(value) if isinstance(value, tuple) else value
    for flag in ("pinned", "sleep"):
        if given[flag]:
            found[flag] = True
    for flag in ("args", "env"):
        if given[flag]:
            found[flag] = given[flag]
    return found


def _what(what: str) -> str:
    """A folder of this machine by its whole path, the rest as it is."""
    near = what.startswith((".", "~"))
    path = Path(what).expanduser() if near or "/" in what else None
    if path is not None and path.is_dir():
        return os.path.normpath(path.absolute())
    if near:
        raise click.UsageError(
            f"There is no folder {what!r} (looked for {path and path.absolute()})."
        )
    return what


def _with_hint(error: ClientError, what: str) -> ClientError:
    """A folder that somebody named without a slash."""
    if getattr(error, "status", None) == 404 and Path(what).is_dir() and "/" not in what:
        return ClientError(f"{error} For the folder here: `roundhouse load ./{what}`.")
    return error


# --- waiting ------------------------------------------------------------------------------------


def _wait(server: Client, engine: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """Until it is ready. Raises LoadFailed, and Exit when somebody presses Ctrl-C."""
    from server.cli.command import INTERRUPTED
    from server.cli.live import Line

    name, path = str(engine["name"]), f"/engines/{segment(str(engine['name']))}"
    try:
        with Line() as line:
            return _watch(server, path, engine, line, timeout)
    except KeyboardInterrupt:
        click.echo(
            f"Stopped waiting. {name} goes on loading: `roundhouse ps` shows how far it is, "
            f"`roundhouse unload {name}` ends it.",
            err=True,
        )
        raise click.exceptions.Exit(INTERRUPTED) from None


def _watch(
    server: Client, path: str, engine: dict[str, Any], line: Any, timeout: float | None
) -> dict[str, Any]:
    name, begun, stirred = str(engine["name"]), time.monotonic(), False
    while True:
        state, passed = engine.get("state"), time.monotonic() - begun
        if state == "ready":
            return engine
        if state == "failed":
            lines = tuple(printable(str(line)) for line in engine.get("log") or ())
            error = printable(error_of(engine) or "It does not say why.")
            raise LoadFailed(f"{name} has failed. {error}{kept(engine)}", lines)
        stirred = stirred or state != "stopped"
        if state == "stopped" and (stirred or passed > _BEGIN):
            raise LoadFailed(f"{name} is stopped: somebody has unloaded it meanwhile.")
        if timeout is not None and passed >= timeout:
            raise LoadFailed(
                f"{name} is not ready after {timeout:g} s. It goes on loading: `roundhouse ps` "
                f"shows how far it is, `roundhouse unload {name}` ends it."
            )
        line.say(name, doing(engine), left(engine, passed))
        time.sleep(_LOOK if timeout is None else min(_LOOK, max(0.0, timeout - passed)))
        try:
            engine = server.get(path)
        except Refused as error:
            if error.status != 404:
                raise
            raise LoadFailed(f"{name} is gone: somebody has unloaded it meanwhile.") from None


def kept(engine: dict[str, Any]) -> str:
    """What becomes of one that was added and cannot start."""
    if engine.get("origin") != "loaded":
        return ""
    return f" `roundhouse unload {engine.get('name')}` forgets it."


def doing(engine: dict[str, Any]) -> str:
    """The stage, with what is wrong while it is tried again."""
    state, stage = str(engine.get("state")), str(engine.get("stage") or "")
    if state == "backoff":
        return f"tried again soon; it said: {error_of(engine) or 'nothing'}"
    if state == "stopped":
        return stage or "about to load"
    return stage or state


def left(engine: dict[str, Any], passed: float) -> str:
    """`, 12 s, about 30 s left`"""
    eta = engine.get("eta_s")
    return f", {passed:.0f} s" + (f", about {eta:.0f} s left" if eta else "")
