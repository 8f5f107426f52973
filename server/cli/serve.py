"""`roundhouse serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.options import is_config, overrides, server_options

if TYPE_CHECKING:
    from server.config.load import Loaded
    from server.serving import Roundhouse


@click.command(
    epilog="""\b
Examples:
  roundhouse serve                            ./roundhouse.yaml, else the embedded model
  roundhouse serve configs/example.yaml       a config file
  roundhouse serve Qwen/Qwen3-0.6B ./my-model a hub id and a folder, without a file
  roundhouse serve --port 9000 --log-level debug
  ROUNDHOUSE_API_KEY=sk-… roundhouse serve --host 0.0.0.0

Without an argument the config is ROUNDHOUSE_CONFIG, else ./roundhouse.yaml, else one with the
embedded model. SIGHUP reads it again; SIGTERM and Ctrl-C stop in order, twice stop at once."""
)
@click.argument("what", nargs=-1, metavar="[CONFIG | MODEL ...]")
@server_options
def serve(what: tuple[str, ...], **flags: Any) -> int:
    """Serve models on one OpenAI-compatible API."""
    loaded = load_what(what, overrides(flags))
    for sentence in loaded.advice:
        click.echo(f"Note: {sentence}", err=True)
    from server.serving import serve as blocking

    return blocking(loaded, Greeter(str(loaded.path) if loaded.path else ""))


def load_what(what: tuple[str, ...], settings: dict[str, Any]) -> Loaded:
    """The config that the arguments ask for. Raises ConfigError, click.UsageError."""
    from server.config import load

    configs = [argument for argument in what if is_config(argument)]
    if configs and len(what) > 1:
        raise click.UsageError(
            "Give one config file, or models by hub id or folder; not both, and not two files."
        )
    if configs:
        return load.load(configs[0], overrides=settings)
    if what:
        return load.from_models(what, overrides=settings)
    found = load.find(os.environ, Path())
    if found is None:
        return load.load_quickstart(overrides=settings)
    return load.load(found, overrides=settings)


class Greeter:
    """Called by the server when it listens, and again when its engines have settled."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._greeted = False

    def __call__(self, server: Roundhouse) -> None:
        from server.cli import greeting
        from server.cli.version import roundhouse_version

        views = (*server.supervisor.views(), *server.fleet.views())
        if self._greeted:
            click.echo(greeting.settled(views), nl=False)
            return
        self._greeted = True
        config = server.services.state.config
        text = greeting.greeting(
            views,
            server.services.state.models,
            greeting.Urls(server.url, server.admin_url, config.server.docs),
            key_needed=bool(config.server.keys),
            version=roundhouse_version(),
            source=self._source,
        )
        click.echo(text, nl=False)
