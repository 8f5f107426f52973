"""`roundhouse serve`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.options import Name, is_config, overrides, server_options

if TYPE_CHECKING:
    from server.config.load import Loaded
    from server.errors import EngineError
    from server.serving import Roundhouse


@click.command(
    epilog="""\b
Examples:
  roundhouse serve                            ./roundhouse.yaml, else what is found here
  OPENAI_API_KEY=sk-… roundhouse serve        every model of that provider, by its id
  roundhouse serve configs/example.yaml       a config file
  roundhouse serve Qwen/Qwen3-0.6B ./my-model a hub id and a folder, without a file
  roundhouse serve --port 9000 --log-level debug
  ROUNDHOUSE_API_KEY=sk-… roundhouse serve --host 0.0.0.0

Without an argument the config is ROUNDHOUSE_CONFIG, else ./roundhouse.yaml, else one with all
models of the providers whose keys are in the environment or in .env, and with the embedded model
where vLLM is installed. What was loaded while it ran last is there again. SIGHUP reads the config
again; SIGTERM and Ctrl-C stop in order, twice at once."""
)
@click.argument("what", nargs=-1, type=Name(), metavar="[CONFIG | MODEL ...]")
@server_options
def serve(what: tuple[str, ...], **flags: Any) -> int:
    """Serve models on one OpenAI-compatible API."""
    loaded = load_what(what, overrides(flags)).with_state()
    for sentence in loaded.advice:
        click.echo(f"Note: {sentence}", err=True)
    from server.errors import EngineError
    from server.serving import serve as blocking

    try:
        return blocking(loaded, Greeter(loaded))
    except EngineError as error:
        if not what and loaded.path is None and error.reason == "environment":
            raise _two_ways(error) from None
        raise


def _two_ways(error: EngineError) -> EngineError:
    """Who gave us nothing at all may want no engine."""
    from server.errors import EngineError

    return EngineError(
        f"{error.message}\nTo serve the models of a provider without it, set its key in the "
        "environment or in .env: OPENAI_API_KEY, ANTHROPIC_API_KEY, MISTRAL_API_KEY, and others "
        "(docs/configuration.md has them all).",
        reason=error.reason,
        terminal=error.terminal,
        log_tail=error.log_tail,
    )


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
        return _without_file(settings)
    return load.load(found, overrides=settings)


def _without_file(settings: dict[str, Any]) -> Loaded:
    """Providers whose keys are here, and the embedded model where vLLM is installed; without keys
    that one in any case: what it lacks is told when it does not start."""
    from server.config import load

    built_in = load.load_quickstart(overrides=settings)
    if not load.providers_with_key():
        return built_in
    if not _has_runtime(built_in):
        return load.from_keys(embedded=False, overrides=settings)
    lack = _lack(built_in)
    found = load.from_keys(embedded=lack is None, overrides=settings)
    if lack is None:
        return found
    note = f"The embedded model is left out: {lack.partition(chr(10))[0]}"
    return dataclasses.replace(found, advice=(*found.advice, note))


def start_note(loaded: Loaded) -> str | None:
    """What keeps `serve` from starting the built-in config here, and what would do instead."""
    if loaded.path is not None or loaded.config.providers or _has_runtime(loaded):
        return None
    return (
        "There is no vLLM here for the embedded model, and no provider's key, so that `roundhouse "
        "serve` would not start: run `make setup-engine`, or set a key such as OPENAI_API_KEY in "
        "the environment or in .env."
    )


def _has_runtime(loaded: Loaded) -> bool:
    """Is there a Python for engines, whatever it has? Asked first, as it takes no time."""
    from server.engines import runtimes

    return any(path.is_file() for path in runtimes.candidates(None, base=loaded.folder))


def _lack(loaded: Loaded) -> str | None:
    """What its engines lack to start: vLLM, weights, memory."""
    from server.config.resolve import local_engines
    from server.engines.launcher import check_static
    from server.errors import EngineError

    config = loaded.config
    try:
        check_static(local_engines(config), config.runtimes, base=loaded.folder)
    except EngineError as error:
        return error.message
    return None


class Greeter:
    """Called by the server when it listens, and again when its engines have settled."""

    def __init__(self, loaded: Loaded) -> None:
        self._source = str(loaded.path or "")
        self._by_variable = {} if loaded.path else loaded.by_variable
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
            by_variable=self._by_variable,
        )
        click.echo(text, nl=False)
