"""`roundhouse check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from server.cli.options import Name

if TYPE_CHECKING:
    from server.config.load import Loaded


@click.command(
    epilog="""\b
Examples:
  roundhouse check                    what `roundhouse serve` would serve here
  roundhouse check configs/example.yaml
  roundhouse check --engines          also look for the weights and for vLLM

Exits with 2 when something is wrong; every fault has its line."""
)
@click.argument("config", required=False, type=Name())
@click.option("--engines", is_flag=True, help="Also look for the weights and for vLLM.")
def check(config: str | None, engines: bool) -> None:
    """Check a config file, and show what it comes to. Starts nothing, asks nobody."""
    from server.cli.serve import load_what, start_note
    from server.config import load

    loaded = load.load(config) if config else load_what((), {})
    summary(loaded)
    if engines:
        look_for_engines(loaded)
    if (note := start_note(loaded)) is not None:
        click.echo(f"Note: {note}")
    click.echo("The config is good.")


def summary(loaded: Loaded) -> None:
    """Listeners, models and what they stand on."""
    from server.cli.greeting import catalog, left_out_by, own, rows
    from server.cli.show import show
    from server.config.resolve import resolve_models

    config = loaded.config
    server = config.server
    click.echo(f"Read        {', '.join(loaded.sources)}")
    click.echo(f"API         {server.host}:{server.port}")
    click.echo(f"Admin API   {server.admin or 'off'}")
    keys = ", ".join(key.name for key in server.keys)
    click.echo(f"Keys        {keys or 'none: everybody on this machine may ask'}")
    click.echo(f"Providers   {', '.join(config.providers) or 'none'}")
    click.echo(f"Engines     {', '.join(config.engines) or 'none'}")
    click.echo()
    found = resolve_models(config, loaded.catalog)
    models = [(name, by) for name, by, _ in rows((), own(found))]
    by_variable = {} if loaded.path else loaded.by_variable
    added = catalog(found, by_variable)
    if models or not added:
        show(("MODEL", "SERVED BY"), models, empty="No models.")
        click.echo()
    if added:
        click.echo("\n".join([*(line.removeprefix("  ") for line in added), ""]))
    if by_variable:
        click.echo("\n".join([*left_out_by(by_variable), ""]))
    for sentence in loaded.advice:
        click.echo(f"Note: {sentence}")


def look_for_engines(loaded: Loaded) -> None:
    """Weights on this disk, the engines' Python, the commands' programs. Raises EngineError."""
    import os

    from server.config.command_checks import words
    from server.config.resolve import local_engines
    from server.engines import command, runtimes, weights
    from server.engines.store import bringing

    config, engines = loaded.config, local_engines(loaded.config)
    store = weights.StoreSettings.of(config.weights, loaded.folder)
    for name in dict.fromkeys(one.runtime for one in engines.values() if not one.command):
        python = runtimes.find_python(name, config.runtimes.get(name), base=loaded.folder)
        click.echo(f"Runtime {name}: {python.path}")
    for name, engine in engines.items():
        if engine.command:
            command.check(name, engine, None, environ=os.environ, base=loaded.folder)
            click.echo(f"Engine {name}: {words(engine.cmd or '')[0]}")
            continue
        dummy = engine.args.get("load-format") == "dummy"
        found = weights.resolve(
            engine.local_weights,
            base=loaded.folder,
            dummy=dummy,
            allow_pickle=config.weights.allow_pickle,
        )
        where = found.argument
        if found.folder is None and not dummy:
            where = bringing.whereabouts(where, engine, store)
        click.echo(f"Engine {name}: {where}")
