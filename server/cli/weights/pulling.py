"""`roundhouse pull`: bring a model's weights here, or register a folder that has some."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.options import Name, json_option
from server.cli.weights.common import Here, Where, where_options, without_weights
from server.engines.store.words import size_of

if TYPE_CHECKING:
    from server.cli.weights.meter import Meter
    from server.config.engine import Engine
    from server.engines.store.records import Record


@click.command(
    epilog="""\b
Examples:
  roundhouse pull Qwen/Qwen3-0.6B
  roundhouse pull Qwen/Qwen3-8B --revision v1.0
  roundhouse pull qwen                     the weights of the config's engine qwen
  roundhouse pull ./my-model               check and register a folder; nothing is copied
  roundhouse pull Qwen/Qwen3-8B --on-server            a running server does it
  roundhouse pull meta-llama/Llama-3.1-8B-Instruct     gated: with HF_TOKEN in the environment

A pull that was cut, or stopped with Ctrl-C, goes on where it was when you pull again. Only
safetensors are taken, with configs, tokenizer and chat template; every file is verified."""
)
@click.argument("model", type=Name())
@click.option("--revision", metavar="NAME", help="Branch, tag or commit [main].")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Take pickled weights if there are no others. They can run code when they are read.",
)
@click.option("--allow-code", is_flag=True, help="Take the repository's own Python as well.")
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait while another process pulls the same model (the default), or say so and end.",
)
@where_options
@click.option("--stop", "stops", is_flag=True, help="With --on-server: end its pull of MODEL.")
@json_option
def pull(
    model: str,
    revision: str | None,
    where: Where,
    allow_pickle: bool,
    allow_code: bool,
    wait: bool,
    stops: bool,
    as_json: bool,
) -> None:
    """Bring the weights of MODEL here: an id on the hub, the name of an engine of the config, or a
    folder."""
    admin_url, admin_key = where.admin_url, where.admin_key
    if where.on_server:
        where.only_there(allow_pickle=allow_pickle, no_wait=not wait)
        if stops:
            return _stop(model, admin_url, admin_key)
        return _there(model, revision, allow_code, admin_url, admin_key, as_json)
    if stops:
        raise click.UsageError("--stop goes with --on-server. A pull of yours ends with Ctrl-C.")
    from server.cli.command import INTERRUPTED
    from server.cli.weights.meter import Meter
    from server.engines.store.errors import StoreError
    from server.engines.store.progress import Progress

    found = where.here()
    name, asked, folder, engine = _what(model, revision, found)
    store = found.store(where.store, engine)
    progress, stop = Progress(), threading.Event()
    record: Record | None = None
    before = "asking the hub" if folder is None else "reading"
    with Meter(name, progress, as_json=as_json, before=before) as meter:
        try:
            if folder is not None:
                record = _registered(folder, found.home, progress, stop, meter.tick)
            else:
                from server.engines.store.hub import Hub
                from server.engines.store.pulling import Pull, Wanted

                settings = found.settings
                wanted = Wanted(
                    name,
                    asked,
                    who(),
                    allow_pickle or settings.allow_pickle,
                    allow_code or (engine is not None and engine.trust_remote_code),
                )
                environ = {**os.environ, **(engine.env if engine else {})}
                record = Pull(
                    wanted,
                    store,
                    Hub.of(environ, stall=settings.stall_timeout),
                    progress=progress,
                    stop=stop,
                    tick=meter.tick,
                    wait=wait,
                    workers=settings.workers,
                ).run()
        except StoreError as error:
            meter.event("error", reason=error.reason, message=str(error))
            raise
        except KeyboardInterrupt:
            stop.set()
    if record is None:
        click.echo("Stopped. What has come is kept; pull again to go on.", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    _tell(record, store, meter, as_json)


def _there(
    model: str,
    revision: str | None,
    allow_code: bool,
    admin_url: str | None,
    admin_key: str | None,
    as_json: bool,
) -> None:
    from server.cli.client import ClientError
    from server.cli.command import INTERRUPTED
    from server.cli.weights import remote
    from server.cli.weights.meter import Meter

    mirror = remote.Mirror()
    done: dict[str, Any] | None = None
    with Meter(model, mirror, as_json=as_json, before="asking the server") as meter:
        try:
            done = remote.pull(model, revision, allow_code, admin_url, admin_key, mirror, meter)
        except ClientError as error:
            meter.event("error", reason=getattr(error, "why", "client"), message=str(error))
            raise
        except KeyboardInterrupt:
            pass
    if done is None:
        remote.leave(model)
        raise click.exceptions.Exit(INTERRUPTED)
    if as_json:
        meter.event("done", **done)
        return
    click.echo(
        f"{done['model']} is on the server: commit {str(done['commit'])[:12]}, "
        f"{done['files']} files, {size_of(done['size'])}, verified."
    )


def _stop(model: str, admin_url: str | None, admin_key: str | None) -> None:
    from server.cli.weights import remote

    if not (ids := remote.stop(model, admin_url, admin_key)):
        raise click.ClickException(f"The server pulls no {model}.")
    click.echo(f"Stopped {', '.join(ids)}. What has come is kept.")


def who() -> str:
    """The user, for the record."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name in this container
        import os

        return f"user {os.getuid()}"


def _what(
    model: str, revision: str | None, found: Here
) -> tuple[str, str, Path | None, Engine | None]:
    """The name to show, the revision, the folder if it is one, and whose weights they are."""
    base = Path()
    engine = found.engines.get(model)
    if engine is not None:
        if engine.weights is None:
            raise click.ClickException(without_weights(model, engine))
        model, base = engine.weights, found.folder
        revision = revision or engine.revision
    if model.startswith("embedded:"):
        raise click.ClickException(f"{model} comes with Roundhouse: there is nothing to pull.")
    path = base / Path(model).expanduser()
    if path.is_dir() or model.startswith(("/", ".", "~")):
        if revision is not None:
            raise click.UsageError("A folder has no revisions.")
        if not path.is_dir():
            raise click.ClickException(
                f"There is no folder {model!r} (looked for {path.absolute()})."
            )
        return path.resolve().name, "", path, engine
    return model, revision or "main", None, engine


def _registered(
    folder: Path, home: Path, progress: Any, stop: threading.Event, tick: Callable[[], None]
) -> Record:
    """In a thread, so that the bar moves while it reads."""
    from server.engines.store.beside import beside
    from server.engines.store.local import register

    def work() -> Record:
        return register(folder, home, asked_by=who(), progress=progress, stop=stop)

    return beside(work, stop, tick, name="register")


def _tell(record: Record, where: Path, meter: Meter, as_json: bool) -> None:
    from server.engines.store.places import Place

    path = Path(record.path or "") if record.path else None
    path = path or Place(where, record.name).snapshot(record.commit)
    if as_json:
        meter.event(
            "done",
            name=record.name,
            commit=record.commit or None,
            size=record.size,
            files=len(record.files),
            licence=record.licence,
            path=str(path),
        )
        return
    what = f"commit {record.commit[:12]}, " if record.commit else ""
    licence = f", licence {record.licence}" if record.licence else ""
    verb = "is registered" if record.path else "is here"
    click.echo(
        f"{record.name} {verb}: {what}{len(record.files)} files, "
        f"{size_of(record.size)}{licence}, verified."
    )
    click.echo(str(path))
    if record.pickled:
        click.echo("Its weights are pickled: whoever made them can run code here.", err=True)
