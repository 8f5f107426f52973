"""What the commands for weights share: where things are, who uses them, how they are told."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.options import admin_options, all_options

if TYPE_CHECKING:
    from server.config.engine import Engine
    from server.config.weights import Weights
    from server.engines.store.holdings import Holding
    from server.engines.weights import StoreSettings


@dataclass(frozen=True, slots=True)
class Here:
    """What the config of this folder, or the one named, says: the server's home, its engines and
    its `weights`. `folder` is what their weights are relative to."""

    home: Path
    folder: Path = field(default_factory=Path)
    engines: dict[str, Engine] = field(default_factory=dict)
    weights: Weights | None = None

    def users(self, holding: Holding) -> list[str]:
        """The engines that are served from it."""
        from server.engines.store.holdings import users

        return users(holding, self.engines, self.folder)

    def named(self, model: str, revision: str | None, where: Path) -> Sequence[Holding]:
        """What the store has under this name; else the weights of the config's engine of this name.
        Raises StoreError, OSError."""
        from server.engines.store.errors import StoreError
        from server.engines.store.holdings import holdings, named

        found = holdings(where, self.home)
        engine = self.engines.get(model)
        if engine is not None and not any(one.name == model for one in found):
            if engine.weights is None:
                raise StoreError(without_weights(model, engine), reason="not_found")
            path = self.folder / Path(engine.weights).expanduser()
            model = str(path.absolute()) if path.is_dir() else engine.weights
        if model.startswith("embedded:"):
            raise StoreError(
                f"{model} comes with Roundhouse, and is in no store.", reason="not_found"
            )
        return named(model, revision, found)

    @property
    def settings(self) -> StoreSettings:
        from server.engines.weights import StoreSettings

        return (
            StoreSettings() if self.weights is None else StoreSettings.of(self.weights, self.folder)
        )

    def store(self, given: str | None, engine: Engine | None = None) -> Path:
        """The folder given, else that of the config, else the hub's cache; that of `engine` where
        it has variables of its own. Raises StoreError for what is none."""
        from server.engines.store.errors import StoreError
        from server.engines.store.places import store_folder

        folder = self.settings.folder if given is None else None
        if folder is None:
            folder = store_folder(given, {**os.environ, **(engine.env if engine else {})})
        if folder.exists() and not folder.is_dir():
            raise StoreError(
                f"{folder} is no folder. Name one with --store, `weights.folder`, HF_HUB_CACHE or "
                "HF_HOME.",
                reason="store",
            )
        return folder


def here(config: str | None, *, strict: bool = False) -> Here:
    """From the config named or found. One that is only found and has faults does not count, unless
    `strict`. Raises ConfigError."""
    from server.cli.models.configured import read_config
    from server.config.load import load_quickstart
    from server.errors import StartError

    try:
        loaded, _ = read_config(config)
    except (StartError, OSError):
        if strict or config is not None:
            raise
        click.echo(
            "The config here has faults, so nobody knows which engine uses what, and its `weights` "
            "do not count. `roundhouse check` shows them.",
            err=True,
        )
        return Here(load_home())
    if loaded is None:
        return Here(load_quickstart().home)
    return Here(
        loaded.home, loaded.folder, dict(loaded.config.engines), weights=loaded.config.weights
    )


def load_home() -> Path:
    """The home that the environment names, else the default one."""
    return Path(os.environ.get("ROUNDHOUSE_HOME") or "~/.roundhouse").expanduser()


def without_weights(name: str, engine: Engine) -> str:
    """Of an engine that runs a command, or runs elsewhere."""
    return (
        f"The engine {name} of the config has no weights that could be here: its runtime is "
        f"{engine.runtime}."
    )


@dataclass(frozen=True, slots=True)
class Where:
    """Whose disk a command is about, as its options say: a store here, or that of a server."""

    store: str | None
    config: str | None
    on_server: bool
    admin_url: str | None
    admin_key: str | None

    def here(self, *, strict: bool = False) -> Here:
        """Raises ConfigError."""
        return here(self.config, strict=strict)

    def only_there(self, **given: object) -> None:
        """Raises UsageError for options that mean nothing on a server's disk."""
        given = {"store": self.store, "config": self.config, **given}
        if found := [name for name, value in given.items() if value]:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in found)
            raise click.UsageError(
                f"{names} cannot go with --on-server: there the server's own config says."
            )


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a Where, which `command` gets as `where`."""

    @functools.wraps(command)
    def packed(**given: Any) -> Any:
        where = Where(**{each.name: given.pop(each.name) for each in fields(Where)})
        return command(where=where, **given)

    return all_options(
        (
            click.option(
                "--store",
                metavar="FOLDER",
                help="Where pulled models are. Default: `weights.folder` of the config, else the "
                "hub's cache. [HF_HUB_CACHE, HF_HOME]",
            ),
            click.option(
                "--config",
                metavar="FILE",
                help="Default: ROUNDHOUSE_CONFIG, else ./roundhouse.yaml.",
            ),
            click.option(
                "--on-server",
                is_flag=True,
                help="On the disk of a running server, by its admin API.",
            ),
            admin_options,
        )
    )(packed)


@contextmanager
def told(where: Path) -> Iterator[None]:
    """Turns what the system says of the store into a sentence."""
    from server.engines.store.errors import StoreError

    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename or where} cannot be used ({error.strerror or type(error).__name__}). "
            "Is the store somebody else's? --store, `weights.folder`, HF_HUB_CACHE or HF_HOME name "
            "another.",
            reason="store",
        ) from None


def since(when: str) -> str:
    """`3d ago`"""
    from datetime import UTC, datetime

    from server.cli.ps import ago

    if not when:
        return "-"
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()
    except (ValueError, TypeError):
        return when
    return f"{ago(max(seconds, 0))} ago"
