"""`roundhouse run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from server.cli.chat import chat_options, request_options
from server.cli.greeting import describe
from server.cli.options import Name
from server.engines.state import EngineState, EngineView

if TYPE_CHECKING:
    from server.cli.inside import Inside
    from server.config.load import Loaded

_LOOK: Final = 0.2
_QUIET: Final = {
    "server.host": "127.0.0.1",
    "server.port": 0,
    "server.admin": "off",
    "log.access": False,
}


@click.command(
    epilog="""\b
Examples:
  roundhouse run                        the embedded model
  roundhouse run Qwen/Qwen3-0.6B        a model of the hub
  roundhouse run ./my-model             a folder
  echo "What is a fallback?" | roundhouse run embedded:guide"""
)
@click.argument("model", default="embedded:guide", type=Name())
@chat_options
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="error",
    help="How much the server's log says.",
)
def run(
    model: str,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    log_level: str,
) -> None:
    """Serve one model on a free port and chat with it, here in the terminal.

    MODEL is a hub id, a folder, or embedded:guide. Nothing is left running at the end.
    """
    from server.cli import client, talk
    from server.cli.inside import Inside
    from server.cli.prompt import Prompt
    from server.config.listeners import new_key
    from server.telemetry import logs

    key = new_key()
    loaded, name = what_to_run(model, log_level, key)
    logs.configure(loaded.config.log.level, loaded.config.log.format, access=False)
    piped = None if sys.stdin.isatty() else talk.piped_text()
    if piped == "":
        raise click.UsageError("The standard input is empty: there is nothing to ask.")
    with Inside(loaded) as server:
        wait_until_ready(server)
        with client.Client(server.url, key, key_hint="", start_hint="Its log says why.") as http:
            conversation = talk.Talk(http, name, request_options(temperature, max_tokens))
            if system:
                conversation.system(system)
            if piped is not None:
                talk.once(conversation, piped)
            else:
                with Prompt() as prompt:
                    talk.interactive(conversation, prompt.read)


def what_to_run(model: str, log_level: str, key: str) -> tuple[Loaded, str]:
    """The config to run, with `key` as its only way in, and the model's name in it."""
    from server.config import load

    environ = {n: v for n, v in os.environ.items() if n != "ROUNDHOUSE_KEYS_FILE"}
    loaded = load.from_models(
        [model],
        environ={**environ, "ROUNDHOUSE_API_KEY": key},
        overrides={**_QUIET, "log.level": log_level},
    )
    return loaded, next(iter(loaded.config.models))


def wait_until_ready(server: Inside) -> None:
    """Show the stages of loading until the engine is ready. Raises EngineError if it fails."""
    from server.errors import EngineError

    with _progress() as say:
        while True:
            (view,) = server.views()
            if view.state is EngineState.READY:
                return
            if view.state is EngineState.FAILED:
                raise EngineError(
                    view.error or f"The engine {view.name} has failed.",
                    reason=view.error_reason or "crash",
                    log_tail=server.log_tail(view.name),
                )
            say(stage_of(view))
            server.wait(_LOOK)


def stage_of(view: EngineView) -> str:
    """`guide: loading weights, about 12 s`"""
    text = describe(view)
    return f"{view.name}: {view.stage} ({text})" if view.stage else f"{view.name}: {text}"


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line that changes, on a terminal; elsewhere a line for each change. On stderr."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("starting") as status:
            yield lambda text: status.update(text)
        return
    last = ""

    def say(text: str) -> None:
        nonlocal last
        shown = text.partition(", about")[0]
        if shown != last:
            click.echo(text, err=True)
        last = shown

    yield say
