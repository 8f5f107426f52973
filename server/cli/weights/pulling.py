"""`roundhouse pull`: bring a model's weights here, or register a folder that has some."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.options import json_option
from server.cli.weights.common import Here, here, place_options, size_of

if TYPE_CHECKING:
    from server.cli.weights.meter import Meter
    from server.engines.store.records import Record


@click.command(
    epilog="""\b
Examples:
  roundhouse pull Qwen/Qwen3-0.6B
  roundhouse pull Qwen/Qwen3-8B --revision v1.0
  roundhouse pull qwen                     the weights of the config's engine qwen
  roundhouse pull ./my-model               check and register a folder; nothing is copied
  roundhouse pull meta-llama/Llama-3.1-8B-Instruct     gated: with HF_TOKEN in the environment

A pull that was cut, or stopped with Ctrl-C, goes on where it was when you pull again. Only
safetensors are taken, with configs, tokenizer and chat template; every file is verified."""
)
@click.argument("model")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit [main].")
@place_options
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
@json_option
def pull(
    model: str,
    revision: str | None,
    store: str | None,
    config: str | None,
    allow_pickle: bool,
    allow_code: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Bring the weights of MODEL here: an id on the hub, the name of an engine of the config, or a
    folder."""
    from server.cli.command import INTERRUPTED
    from server.cli.weights.meter import Meter
    from server.engines.store.errors import StoreError
    from server.engines.store.progress import Progress

    found = here(config)
    name, asked, folder = _what(model, revision, found)
    progress, stop = Progress(), threading.Event()
    record: Record | None = None
    before = "asking the hub" if folder is None else "reading"
    with Meter(name, progress, as_json=as_json, before=before) as meter:
        try:
            if folder is not None:
                record = _registered(folder, found.home, progress, stop, meter.tick)
            else:
                from server.engines.store.hub import Hub
                from server.engines.store.places import store_folder
                from server.engines.store.pulling import Pull, Wanted

                wanted = Wanted(name, asked, who(), allow_pickle, allow_code)
                record = Pull(
                    wanted,
                    store_folder(store),
                    Hub.of(),
                    progress=progress,
                    stop=stop,
                    tick=meter.tick,
                    wait=wait,
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


def who() -> str:
    """The user, for the record."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name in this container
        import os

        return f"user {os.getuid()}"


def _what(model: str, revision: str | None, found: Here) -> tuple[str, str, Path | None]:
    """The name to show, the revision, and the folder if it is one."""
    base = Path()
    engine = found.engines.get(model)
    if engine is not None and engine.weights is not None:
        model, base = engine.weights, found.folder
        revision = revision or engine.revision
    if model.startswith("embedded:"):
        raise click.ClickException(f"{model} comes with Roundhouse: there is nothing to pull.")
    path = base / Path(model).expanduser()
    if path.is_dir() or model.startswith(("/", ".", "~")):
        if revision is not None:
            raise click.UsageError("A folder has no revisions.")
        if not path.is_dir():
            raise click.ClickException(f"There is no folder {model!r} (looked for {path}).")
        return path.resolve().name, "", path
    return model, revision or "main", None


def _registered(
    folder: Path, home: Path, progress: Any, stop: threading.Event, tick: Callable[[], None]
) -> Record:
    """In a thread, so that the bar moves while it reads."""
    from server.engines.store.errors import Cancelled
    from server.engines.store.local import register

    result: list[Record] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            result.append(register(folder, home, asked_by=who(), progress=progress, stop=stop))
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            errors.append(error)

    thread = threading.Thread(target=work, name="register", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            tick()
    finally:
        stop.set()
        with contextlib.suppress(KeyboardInterrupt):
            thread.join(2.0)
    if errors and not isinstance(errors[0], Cancelled):
        raise errors[0]
    return result[0]


def _tell(record: Record, store: str | None, meter: Meter, as_json: bool) -> None:
    from server.engines.store.places import Place, store_folder

    path = Path(record.path or "") if record.path else None
    path = path or Place(store_folder(store), record.name).snapshot(record.commit)
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
